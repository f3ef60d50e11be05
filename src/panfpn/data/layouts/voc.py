"""Pascal VOC's segmentation, as CVAT and labelme write it too: lists, masks by palette or colour, and maps of objects.

JPEGImages/, SegmentationClass/, SegmentationObject/ (if things shall be told apart), ImageSets/Segmentation/SPLIT.txt
and, of other classes than VOC's, labelmap.txt with a line `name:R,G,B::` for each.
"""

from pathlib import Path

from panfpn.data.dataset import FileDataset
from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.folder import FolderSegments
from panfpn.data.layouts.listing import SPLITS, first_existing, inside, listed, names_of_split, paired
from panfpn.data.layouts.painting import BACKGROUND
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset
from panfpn.labels import LabelTable

_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VOID = "#e0e0c0"  # of the outlines of objects
_LISTS = "ImageSets/Segmentation"


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """A split of the lists; with SegmentationObject, its things are told apart.

    ValueError for a list that names what is not there, or leads outside, and for a labelmap.txt that cannot be read.
    """
    root = _root(request.folder)
    names, named_masks = _listed_names(request, root)
    table = request.fitting(request.own_table() or _table(root, request))
    pictures = _of(names, listed(request, root / "JPEGImages"), request, "image", root)
    masks = _of(names, listed(request, root / "SegmentationClass"), request, "mask", root) | named_masks
    if _labelmap(request, root) is not None:  # CVAT lists frames without an object, and writes no mask of them
        for name in [name for name in pictures if name not in masks]:
            request.left_out.add("listed images without a mask", pictures.pop(name))
    items = paired(request, pictures, masks)
    objects = root / "SegmentationObject"
    if not objects.is_dir():
        request.refuse_panoptic(f"no folder {objects}")
        return FileDataset(table, items)
    maps = _of(names, listed(request, objects), request, "map of objects", root)
    triples = [(item, maps[item[0]]) for item in items if item[0] in maps]
    missing = [item[0] for item in items if item[0] not in maps]
    if missing and not request.panoptic:
        return FileDataset(table, items)
    if missing:
        raise ValueError(f"{objects}: has no map of objects of {', '.join(missing[:5])}, which SegmentationClass has")
    if not request.panoptic:
        return FileDataset(table, items)
    source = FolderSegments(table, tuple(path for _, path in triples), tuple(item[2] for item, _ in triples))
    return PanopticDataset(table, tuple(item[:2] for item, _ in triples), source, panoptic=True)


def splits(root: Path) -> list[str]:
    """The splits that have a list."""
    lists = _root(root) / _LISTS
    return [split for split in SPLITS if _list_of(lists, split) is not None]


def _root(folder: Path) -> Path:
    """Where SegmentationClass is: in the folder, or as VOC's archive unpacks."""
    years = sorted((folder / "VOCdevkit").glob("VOC*"), reverse=True) + sorted(folder.glob("VOC2*"), reverse=True)
    found = first_existing(place / "SegmentationClass" for place in (folder, *years))
    return found.parent if found else folder


def _list_of(lists: Path, split: str) -> Path | None:
    candidates = [lists / f"{name}.txt" for name in names_of_split(split)]
    return first_existing([*candidates, *([lists / "default.txt"] if split == "train" else [])])


def _listed_names(request: SplitRequest, root: Path) -> tuple[list[str], dict[str, Path]]:
    """Names of a list, and the masks that it names (SBD's lists have the paths of image and mask)."""
    file = _list_of(root / _LISTS, request.split)
    if file is None:
        there = ", ".join(sorted(p.name for p in (root / _LISTS).glob("*.txt"))) or "nothing"
        raise ValueError(f"{root / _LISTS / request.split}.txt: no such file; {_LISTS} holds {there}")
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not text in UTF-8 (byte {error.start})") from error
    names: list[str] = []
    masks: dict[str, Path] = {}
    for number, line in enumerate(lines, 1):
        if line:
            name, *more = line.split() if line.startswith("/") else [line]
            if more:
                name, mask = Path(name).stem, more[0].lstrip("/")
                if not inside(mask) or not (root / mask).is_file():
                    raise ValueError(f"{file}: line {number} names the mask {more[0]}, which is not in {root}")
                masks[name] = root / mask
            name = name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
            if not inside(name):
                raise ValueError(f"{file}: line {number} names {line}, which leads outside of {root}")
            names.append(name)
    if len(set(names)) < len(names):
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise ValueError(f"{file}: names {twice} twice")
    if not names:
        raise ValueError(f"{file}: names no image, so the split is empty")
    return names, masks


def _of(names: list[str], paths: dict[str, Path], request: SplitRequest, what: str, root: Path) -> dict[str, Path]:
    """Those of `paths` that the list names; what no list names belongs to other splits."""
    found = {name: paths[name] for name in names if name in paths}
    if what == "image" and len(found) < len(names):
        missing = [name for name in names if name not in paths]
        text = f"{root / _LISTS}: the list of split {request.split!r} names {missing[0]}"
        text += f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        if request.unpaired is None:
            raise ValueError(f"{text}, but there is no such image in {root / 'JPEGImages'}")
        request.unpaired.extend(f"{root / _LISTS}: names {name}, which JPEGImages does not hold" for name in missing)
    return found


def _labelmap(request: SplitRequest, root: Path) -> Path | None:
    return first_existing([root / "labelmap.txt", request.folder / "labelmap.txt"])


def _table(root: Path, request: SplitRequest) -> LabelTable:
    """VOC's twenty things, or the classes of labelmap.txt, which all but background are."""
    file = _labelmap(request, root)
    if file is None:
        things = [{"name": name, "value": k, "thing": name not in request.stuff} for k, name in enumerate(_NAMES, 1)]
        plain = {"name": "voc", "ignore": [255],
                 "classes": [{"name": BACKGROUND, "value": 0, "color": "#000000"}, *things]}  # fmt: skip
        return LabelTable.from_dict(plain, "voc")
    classes = []
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        color = rest.split(":")[0].split(",")
        if len(color) != 3 or not all(c.strip().isdigit() and int(c) < 256 for c in color):
            raise ValueError(f"{file}: line {number} is {line.strip()!r}; a line is name:R,G,B:: with a colour's "
                             "red, green and blue")  # fmt: skip
        thing = name.casefold() != BACKGROUND and name not in request.stuff
        classes.append({"name": name, "color": "#{:02x}{:02x}{:02x}".format(*map(int, color)), "thing": thing})
    ignore = [] if any(c["color"] == _VOID for c in classes) else [_VOID]
    plain = {"name": request.folder.name, "masks": "colors", "ignore": ignore, "classes": classes}
    return LabelTable.from_dict(plain, file)
