"""How data sets lie on disk, a file for each layout, opened by its name in `panfpn.choices.LAYOUTS`.

A layout's file has `open_split(request: SplitRequest) -> Dataset`, and if reading every sample is not all that
`panfpn data check` should do, `problems(request: SplitRequest, *, progress: bool) -> Iterator[str]`. A folder is
recognised as its own by `splits(root: Path) -> list[str]`, or `described_by(root: Path) -> dict[str, Path]` where a
file describes each split. A new one is such a file and its line in the dict; its label table, if it has one of its own,
goes to data/labels/NAME.json. What is folders and endings alone is a file in data/presets/.
"""
