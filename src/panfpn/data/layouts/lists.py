"""List files: SPLIT.txt with an image and its mask in each line, and labels.yaml, as PaddleSeg has them."""

from pathlib import Path

from panfpn.data.dataset import FileDataset
from panfpn.data.layouts.listing import SPLITS, first_existing, inside, names_of_split
from panfpn.data.layouts.request import SplitRequest


def open_split(request: SplitRequest) -> FileDataset:
    """The pairs of a list, which stand between a tab, a comma or a blank, below the root.

    ValueError names the line that is no pair, leads outside, or names what is not there.
    """
    request.refuse_panoptic()
    root, file = request.folder, _list(request.folder, request.split)
    table = request.own_table()
    if file is None:
        raise ValueError(f"{root / request.split}.txt: no such list of images and masks")
    if table is None:
        raise ValueError(
            f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or `ignore`"
        )
    items: dict[str, tuple[str, Path, Path]] = {}
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not text in UTF-8 (byte {error.start})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        words = next(([w.strip() for w in line.split(c)] for c in ("\t", ",") if c in line), line.split())
        if len(words) != 2 or not all(words):
            raise ValueError(f"{file}: line {number} is {line.strip()!r}; a line is an image, a tab and its mask")
        if not all(map(inside, words)):
            raise ValueError(f"{file}: line {number} leads outside of {root}")
        image, mask = (root / word for word in words)
        missing = next((path for path in (image, mask) if not path.is_file()), None)
        name = Path(words[0]).with_suffix("").as_posix()
        if name in items:
            raise ValueError(f"{file}: line {number} names {words[0]} again")
        if missing is not None:
            sentence = f"{missing}: no such file, but line {number} of {file.name} names it"
            if request.unpaired is None:
                raise ValueError(sentence)
            request.unpaired.append(sentence)
        else:
            items[name] = (name, image, mask)
    if not items:
        raise ValueError(f"{file}: names no pair, so the split is empty")
    return FileDataset(table, tuple(items.values()))


def splits(root: Path) -> list[str]:
    """The splits that have a list; none without labels.yaml."""
    if not (root / "labels.yaml").is_file():
        return []
    return [split for split in SPLITS if _list(root, split) is not None]


def _list(root: Path, split: str) -> Path | None:
    endings = (".txt", "_list.txt", ".csv")
    return first_existing(root / f"{name}{ending}" for name in names_of_split(split) for ending in endings)
