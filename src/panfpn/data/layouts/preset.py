"""Known data sets that need no code of their own: where images and masks lie, from presets/NAME.yaml.

`images` and `masks` are folders below the root, `{split}` stands for what `splits` calls it, `*` for any folder, which
becomes a part of the names. `image_ending` and `mask_ending` stand before the suffix and are no part of the names.
`table` is a label table of panfpn's, `train_ids` says that masks hold train ids; `labels` is a file in the root that
names the classes (Mapillary's config_v2.0.json).
"""

from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from panfpn.choices import LAYOUTS
from panfpn.data.dataset import FileDataset
from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.listing import alike, listed, paired
from panfpn.data.layouts.request import SplitRequest
from panfpn.files import read_json
from panfpn.labels import LabelTable
from panfpn.yaml_text import parse_yaml


@dataclass(frozen=True)
class Preset:
    """The opener of a data set that presets/NAME.yaml describes."""

    name: str

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the file says."""
        file = resources.files("panfpn") / "data" / "presets" / f"{self.name}.yaml"
        return dict(parse_yaml(file.read_text("utf-8")))

    def __call__(self, request: SplitRequest) -> FileDataset:
        """Images and masks of a split; ValueError as `paired` gives it, and for a split that the data set has not."""
        request.refuse_panoptic()
        settings, root = self.settings, request.folder
        place = settings["splits"].get(request.split)
        if place is None:
            there = ", ".join(settings["splits"])
            raise ValueError(f"data set {self.name!r} has no split {request.split!r}, only {there} (data.split takes "
                             "validation images from train)")  # fmt: skip
        table = request.own_table() or _table(settings, request)
        images, masks = (
            _listed(request, root, settings[part].replace("{split}", place), settings.get(f"{part[:-1]}_ending", ""))
            for part in ("images", "masks")
        )
        return FileDataset(table, paired(request, *alike(images, masks)))

    def splits(self, root: Path) -> list[str]:
        """The splits that lie there, with a mask at least, and the file that names the classes if there must be one."""
        if "labels" in self.settings and not (root / self.settings["labels"]).is_file():
            return []
        masks = f"{self.settings['masks']}/**/*{self.settings.get('mask_ending', '')}.*"
        places = self.settings["splits"].items()
        found = {split: root.glob(masks.replace("{split}", place)) for split, place in places}
        return [split for split, paths in found.items() if any(p.suffix.lower() in IMAGE_SUFFIXES for p in paths)]


def __getattr__(name: str) -> Preset:
    """The preset of a name: choices.LAYOUTS says which there are."""
    if not LAYOUTS.get(name, "").startswith(f"{__name__}:"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return Preset(name)


def _listed(request: SplitRequest, root: Path, pattern: str, ending: str) -> dict[str, Path]:
    """Files that end so by name, of all folders that match."""
    folders = [folder for folder in sorted(root.glob(pattern)) if folder.is_dir()]
    if not folders:
        raise ValueError(f"{root / pattern}: no such folder, so the split is empty")
    free = [i for i, part in enumerate(Path(pattern).parts) if "*" in part]
    found: dict[str, Path] = {}
    for folder in folders:
        tag = "".join(f"{folder.relative_to(root).parts[i]}/" for i in free)
        for name, path in listed(request, folder, lambda p: p.stem.endswith(ending), ending=ending).items():
            found[tag + name] = path
    return found


def _table(settings: dict[str, Any], request: SplitRequest) -> LabelTable:
    if "labels" in settings:
        return _mapillary(request.folder / settings["labels"], request.layout)
    if "classes" in settings:
        return LabelTable.from_dict({"name": request.layout, **{k: settings[k] for k in ("classes", "ignore")}})
    table = LabelTable.named(settings["table"])
    return table.as_train_ids() if settings.get("train_ids") else table


def _mapillary(file: Path, name: str) -> LabelTable:
    """The classes of a configuration of Mapillary Vistas: an entry for each value of the masks, from 0 on."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; it names the classes, and lies in the data set's archive")
    entries = read_json(file).get("labels")
    try:
        classes, ignore = [], [255]
        for value, entry in enumerate(entries or ()):
            if not entry["evaluate"]:
                ignore.append(value)
                continue
            color = "#{:02x}{:02x}{:02x}".format(*map(int, entry["color"]))
            classes.append({"name": entry["name"], "value": value, "color": color, "thing": bool(entry["instances"])})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{file}: its labels have no name, color, instances and evaluate ({error})") from error
    return LabelTable.from_dict({"name": name, "ignore": ignore, "classes": classes}, file)
