"""Two trainings of Panoptic FPN on real data, in minutes on two CPU cores: nuclei of DSB2018, and 8 images of COCO.

    python benchmarks/panoptic_trainings.py dsb2018 DATA OUT [panfpn train's options]
    python benchmarks/panoptic_trainings.py coco8 DATA OUT [panfpn train's options]

DATA holds dsb2018/ and coco_panoptic/; OUT gets the data set (links) and the run. dsb2018: by name, the first 150
images train, the other 50 are held out; the score is PQ of nuclei. coco8: the first 8 training images without a crowd,
learnt by heart (no augmentation) and scored on themselves: whether the network can learn what it is shown.
"""

import json
import sys
from pathlib import Path

from panfpn.cli import main

SETTINGS = {
    "dsb2018": ["panoptic_folder"],
    "coco8": [
        "panoptic_folder", "--data.dataset", "coco_panoptic", "--data.train-split", "train2017", "--data.val-split",
        "train2017", "--data.crop", "None", "--data.scale", "512", "384", "--data.ratio", "1", "1", "--data.flip",
        "0", "--data.photometric", "0", "--train.batch-size", "4", "--train.steps", "600", "--train.rois", "128",
        "--run.val-every", "200", "--optim.lr", "1e-3",
    ],
}  # fmt: skip


def nuclei(data: Path, out: Path) -> None:
    names = sorted(path.name for path in (data / "dsb2018" / "images").iterdir())
    for split, part in (("train", names[:150]), ("val", names[150:])):
        for kind in ("images", "instances"):
            folder = out / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            for name in part:
                link(folder / name, data / "dsb2018" / kind / name)
    classes = "[{name: background, value: 0}, {name: nucleus, value: 1, thing: true}]"
    (out / "labels.yaml").write_text(f"name: nuclei\nclasses: {classes}\n")


def coco8(data: Path, out: Path) -> None:
    source = data / "coco_panoptic"
    listing = json.loads((source / "annotations/panoptic_train2017.json").read_text())
    plain = [a for a in listing["annotations"] if not any(s["iscrowd"] for s in a["segments_info"])]
    chosen = sorted(plain, key=lambda a: a["image_id"])[:8]
    ids = {a["image_id"] for a in chosen}
    listing |= {"annotations": chosen, "images": [i for i in listing["images"] if i["id"] in ids]}
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    (out / "annotations/panoptic_train2017.json").write_text(json.dumps(listing))
    for folder in ("annotations/panoptic_train2017", "train2017"):
        link(out / folder, source / folder)


def link(path: Path, target: Path) -> None:
    if not path.exists():
        path.symlink_to(target.resolve())


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in SETTINGS:
        sys.exit(__doc__)
    kind, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"dsb2018": nuclei, "coco8": coco8}[kind](data, out / "data")
    where = ["--data.root", str(out / "data"), "--run.dir", str(out / "run")]
    sys.exit(main(["train", *SETTINGS[kind], *where, *sys.argv[4:]]))
