"""How data sets lie on disk, a file for each layout, opened by its name in `panfpn.choices.LAYOUTS`.

A layout's file has `open_split(request: SplitRequest) -> Dataset`, and if reading every sample is not all that
`panfpn data check` should do, `problems(request: SplitRequest, *, progress: bool) -> Iterator[str]`. A new one is
such a file and its line in the dict; its label table, if it has one of its own, goes to data/labels/NAME.json.
"""
