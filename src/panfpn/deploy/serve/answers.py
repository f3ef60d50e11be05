"""A map as an answer. In: SemanticMap or PanopticMap. Out: plain data with COCO's keys, or the bytes of a picture."""

from typing import Any, Literal

from panfpn.deploy.predictor import Map
from panfpn.draw import as_rgb
from panfpn.files import encoded
from panfpn.labels import LabelTable
from panfpn.shapes import run_lengths

Masks = Literal["rle", "polygons", "none"]
TYPES = {"image/png": ".png", "image/jpeg": ".jpg"}  # of pictures


def as_json(found: Map, masks: Masks) -> dict[str, Any]:
    """Classes with their shares, and segments: of a Semantic FPN, one for each class.

    `masks`: COCO's uncompressed run lengths; polygons along the pixels' edges (a hole is cut into its border); or none.
    """
    regions = found.regions()
    segments = [segment.to_dict(found.table) for segment in regions.segments]
    height, width = regions.index.shape
    if masks == "rle":
        for segment, lengths in zip(segments, run_lengths(regions.index, len(segments)), strict=True):
            segment["segmentation"] = {"size": [height, width], "counts": lengths.tolist()}
    elif masks == "polygons":
        for segment, (_, pieces) in zip(segments, regions.outlines(), strict=True):
            segment["segmentation"] = [piece.joined().ravel().tolist() for piece in pieces]
    numbers = {name: k for k, name in enumerate(found.table.names)}
    classes = [{**as_class(found.table, numbers[name]), "share": share} for name, share in found.shares().items()]
    return {"width": width, "height": height, "classes": classes, "segments": segments}


def as_class(table: LabelTable, number: int) -> dict[str, Any]:
    """A class, with COCO's keys."""
    one = table.classes[number]
    red, green, blue = table.palette[number]
    return {"id": one.values[0], "name": one.name, "isthing": int(one.thing),
            "color": f"#{red:02x}{green:02x}{blue:02x}"}  # fmt: skip


def as_picture(found: Map, what: str, media_type: str) -> bytes:
    """A picture of one of `TYPES`: what `save` writes of a map, or "image", the pixels that the network saw.

    ValueError for what this map does not have, or what would change in a JPEG.
    """
    if media_type == "image/jpeg" and what not in ("image", "overlay"):
        raise ValueError(f"{what} would not survive as JPEG; ask for image/png")
    if what == "image":
        assert found.image is not None
        return encoded(as_rgb(found.image), TYPES[media_type])
    return encoded(found.picture(what), TYPES[media_type])
