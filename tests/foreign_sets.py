"""Data sets as other tools write them, from one list of objects; written by the formats' documentation, without panfpn.

What they come to is computed by COCO's own rasteriser (faster-coco-eval): larger objects first, smaller ones over them.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as coco
from PIL import Image

Array = npt.NDArray[Any]
NAMES = ("bolt", "nut", "washer")  # in the order of the alphabet, as tools that know no order sort them
IDS = (3, 7, 8)  # of COCO's categories
COLORS = ((0, 0, 0), (250, 50, 83), (51, 221, 255), (10, 100, 20))


@dataclass
class Thing:
    name: str
    polygons: list[list[float]]  # x, y, x, y, …

    def bits(self, size: tuple[int, int]) -> Array:
        runs = coco.frPyObjects([list(map(float, p)) for p in self.polygons], *size)
        return coco.decode(runs).reshape(*size, -1).any(-1)


@dataclass
class Photo:
    name: str
    pixels: Array
    things: list[Thing] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def truth(self) -> tuple[Array, Array]:
        """Classes (0: background) and numbers of things from the largest to the smallest (0: none), [H, W] each."""
        classes, numbers = np.zeros(self.size, np.int64), np.zeros(self.size, np.int64)
        masks = sorted(((t.bits(self.size), t.name) for t in self.things), key=lambda pair: -pair[0].sum())
        for number, (bits, name) in enumerate(masks, 1):
            classes[bits], numbers[bits] = NAMES.index(name) + 1, number
        return classes, numbers


def photos(count: int, seed: int = 0, first: int = 0) -> list[Photo]:
    """Small pictures with up to six overlapping things, some of two parts; one has none."""
    generator = np.random.default_rng(seed)
    result = []
    for i in range(count):
        height, width = generator.integers(40, 90, 2).tolist()
        photo = Photo(f"part {first + i:02d}", generator.integers(0, 255, (height, width, 3), np.uint8))
        for _ in range(generator.integers(1, 7) if i else 0):
            parts = [
                (generator.uniform(0, [width, height], (generator.integers(3, 9), 2))).ravel().tolist()
                for _ in range(generator.integers(1, 3))
            ]
            photo.things.append(Thing(str(generator.choice(NAMES)), parts))
        result.append(photo)
    return result


def save_picture(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_coco(root: Path, split: str, pictures: list[Photo], *, roboflow: bool = False, runs: bool = False) -> None:
    """instances_SPLIT.json, or Roboflow's export with its dummy category 0; shapes as polygons or run lengths."""
    folder = root / ("valid" if split == "val" else split) if roboflow else root / split
    categories = [{"id": k, "name": n, "supercategory": "parts"} for k, n in zip(IDS, NAMES, strict=True)]
    if roboflow:
        categories.insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    images, annotations = [], []
    for number, photo in enumerate(pictures, 10):
        save_picture(folder / f"{photo.name}.png", photo.pixels)
        height, width = photo.size
        images.append({"id": number, "file_name": f"{photo.name}.png", "height": height, "width": width})
        for thing in photo.things:
            bits = thing.bits(photo.size)
            shape: Any = thing.polygons
            if runs:
                flat = bits.T.ravel()
                edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
                plain = np.diff([0, *edges.tolist(), flat.size]).tolist()
                packed = coco.encode(np.asfortranarray(bits.astype(np.uint8)))["counts"].decode()
                shape = {"size": [height, width], "counts": plain if len(annotations) % 2 else packed}
            annotations.append({
                "id": 100 + 3 * len(annotations), "image_id": number, "category_id": IDS[NAMES.index(thing.name)],
                "iscrowd": 0, "area": float(bits.sum()), "bbox": [0, 0, 1, 1], "segmentation": shape,
            })  # fmt: skip
    data = {"images": images, "annotations": annotations, "categories": categories}
    file = folder / "_annotations.coco.json" if roboflow else root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))


def write_yolo(root: Path, split: str, pictures: list[Photo]) -> None:
    """data.yaml, images/SPLIT and labels/SPLIT; of a thing of two parts one line each."""
    for photo in pictures:
        save_picture(root / "images" / split / f"{photo.name}.png", photo.pixels)
        height, width = photo.size
        lines = [
            " ".join([str(NAMES.index(t.name)), *(f"{v / (width, height)[i % 2]:.17g}" for i, v in enumerate(p))])
            for t in photo.things for p in t.polygons
        ]  # fmt: skip
        labels = root / "labels" / split / f"{photo.name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            labels.write_text("\n".join(lines) + "\n")
    names = "\n".join(f"  {k}: {name}" for k, name in enumerate(NAMES))
    (root / "data.yaml").write_text(f"path: ../{root.name}\ntrain: images/train\nval: images/val\nnames:\n{names}\n")


def write_yolo_masks(root: Path, split: str, pictures: list[Photo]) -> None:
    """data.yaml with masks_dir, whose values are 10, 20, … by label_mapping, 200 ignored."""
    for photo in pictures:
        save_picture(root / "images" / split / f"{photo.name}.png", photo.pixels)
        save_picture(root / "masks" / split / f"{photo.name}.png", (photo.truth()[0] * 10).astype(np.uint8))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(("background", *NAMES)))
    mapping = "".join(f"  {10 * k}: {k}\n" for k in range(len(NAMES) + 1))
    (root / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nmasks_dir: masks\nnames:\n{names}label_mapping:\n{mapping}"
        "  200: 255\n"
    )


def write_voc(root: Path, split: str, pictures: list[Photo], *, palette: bool = False) -> None:
    """CVAT's segmentation masks: labelmap.txt and colours, as RGB or by a palette in an order of its own."""
    order = [2, 0, 3, 1]  # of colours in the palette
    for photo in pictures:
        classes, numbers = photo.truth()
        save_picture(root / "JPEGImages" / f"{photo.name}.png", photo.pixels)
        objects = np.stack([numbers * 40 % 256, numbers * 90 % 256, numbers], -1).astype(np.uint8)
        save_picture(root / "SegmentationObject" / f"{photo.name}.png", objects)
        if palette:
            mask = Image.fromarray(np.argsort(order)[classes].astype(np.uint8), "P")
            mask.putpalette([channel for k in order for channel in COLORS[k]])
            (root / "SegmentationClass").mkdir(exist_ok=True)
            mask.save(root / "SegmentationClass" / f"{photo.name}.png")
        else:
            save_picture(root / "SegmentationClass" / f"{photo.name}.png", np.array(COLORS, np.uint8)[classes])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{photo.name}\n" for photo in pictures))
    rows = [f"{n}:{','.join(map(str, c))}::" for n, c in zip(("background", *NAMES), COLORS, strict=True)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(rows) + "\n")


def write_roboflow(root: Path, split: str, pictures: list[Photo]) -> None:
    """NAME_mask.png beside NAME.jpg, and _classes.csv."""
    folder = root / ("valid" if split == "val" else split)
    for photo in pictures:
        save_picture(folder / f"{photo.name}.jpg", photo.pixels)
        save_picture(folder / f"{photo.name}_mask.png", photo.truth()[0].astype(np.uint8))
    rows = "".join(f"{k}, {name}\n" for k, name in enumerate(("background", *NAMES)))
    (folder / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}")


def write_labelme(root: Path, split: str, pictures: list[Photo]) -> None:
    """A JSON beside each image; a thing of two parts is a group, each fifth thing a mask, and a point lies around."""
    count = 0
    for photo in pictures:
        save_picture(root / split / f"{photo.name}.png", photo.pixels)
        shapes: list[dict[str, Any]] = [{"label": "bolt", "points": [[3.0, 3.0]], "shape_type": "point"}]
        for number, thing in enumerate(photo.things):
            count += 1
            if count % 5 == 0:
                bits = thing.bits(photo.size)
                done, data = cv2.imencode(".png", bits.astype(np.uint8) * 255)
                assert done
                shapes.append({
                    "label": thing.name, "shape_type": "mask", "group_id": None, "flags": {},
                    "points": [[0.0, 0.0], [photo.size[1] - 1.0, photo.size[0] - 1.0]],
                    "mask": base64.b64encode(data.tobytes()).decode(),
                })  # fmt: skip
                continue
            shapes += [
                {"label": thing.name, "shape_type": "polygon", "points": np.reshape(p, (-1, 2)).tolist(),
                 "group_id": number if len(thing.polygons) > 1 else None, "flags": {}}
                for p in thing.polygons
            ]  # fmt: skip
        data = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{photo.name}.png", "imageData": None,
                "imageHeight": photo.size[0], "imageWidth": photo.size[1]}  # fmt: skip
        (root / split / f"{photo.name}.json").write_text(json.dumps(data))


def write_labelstudio(root: Path, split: str, pictures: list[Photo]) -> None:
    """The JSON export; things of one part are polygons in percent, the others brushes."""
    tasks = []
    for number, photo in enumerate(pictures):
        save_picture(root / "media" / split / f"1a2b3c4d-{photo.name}.png", photo.pixels)
        height, width = photo.size
        result = []
        for thing in photo.things:
            common = {"original_width": width, "original_height": height, "image_rotation": 0, "id": "x"}
            if len(thing.polygons) == 1:
                points = (np.reshape(thing.polygons[0], (-1, 2)) * 100 / [width, height]).tolist()
                value = {"points": points, "closed": True, "polygonlabels": [thing.name]}
                result.append({**common, "type": "polygonlabels", "value": value})
            else:
                value = {"format": "rle", "rle": brush(thing.bits(photo.size)), "brushlabels": [thing.name]}
                result.append({**common, "type": "brushlabels", "value": value})
        tasks.append({
            "id": number, "data": {"image": f"/data/upload/1/1a2b3c4d-{photo.name.replace(' ', '%20')}.png"},
            "annotations": [{"id": 1, "was_cancelled": True, "result": []}, {"id": 2, "result": result}],
        })  # fmt: skip
    (root / f"{split}.json").write_text(json.dumps(tasks))


def brush(bits: Array) -> list[int]:
    """thi.ng/rle-pack of an RGBA image whose alpha is the mask: words of 8 bits, lengths of 3, 4, 8 and 16."""
    values = np.repeat(bits.ravel().astype(np.uint8) * 255, 4)
    text = f"{values.size:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    lengths = (3, 4, 8, 16)
    place = 0
    while place < values.size:
        same = place
        while same < values.size and values[same] == values[place] and same - place < 65536:
            same += 1
        if same - place > 2:
            kind = next(k for k, b in enumerate(lengths) if same - place <= 2**b)
            text += f"1{kind:02b}{same - place - 1:0{lengths[kind]}b}{values[place]:08b}"
        else:
            text += f"0{0:02b}{same - place - 1:03b}" + "".join(f"{v:08b}" for v in values[place:same])
        place = same
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def write_list(root: Path, split: str, pictures: list[Photo]) -> None:
    """SPLIT.txt of pairs, and labels.yaml."""
    lines = []
    for photo in pictures:
        save_picture(root / "jpg" / f"{photo.name}.png", photo.pixels)
        save_picture(root / "ann" / f"{photo.name}.png", photo.truth()[0].astype(np.uint8))
        lines.append(f"jpg/{photo.name}.png\tann/{photo.name}.png\n")
    (root / f"{split}.txt").write_text("".join(lines))
    classes = "".join(f"  - {{name: {n}, value: {k}}}\n" for k, n in enumerate(("background", *NAMES)))
    (root / "labels.yaml").write_text(f"classes:\n{classes}ignore: [255]\n")


def split_parts(pictures: list[Photo]) -> list[Photo]:
    """The same, each part of a thing a thing of its own, as formats without parts have it."""
    return [Photo(p.name, p.pixels, [Thing(t.name, [part]) for t in p.things for part in t.polygons]) for p in pictures]


Writer = Callable[[Path, str, list[Photo]], None]
"""Writes a split below a root."""


def both_splits(write: Writer, root: Path, train: list[Photo], val: list[Photo]) -> Iterator[str]:
    for split, pictures in (("train", train), ("val", val)):
        write(root, split, pictures)
        yield split
