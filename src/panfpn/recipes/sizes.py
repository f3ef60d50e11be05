"""How large images are seen, and which parts of them. In: a Fingerprint, a device, the time. Out: choices of `data`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from panfpn.recipes.observed import Choice, Fingerprint, Machine, fixed

FEWEST = 16  # images that tell sizes apart
FACTORS = (1.0, 1.25, 1.5)  # of the size that validations have had: crops have shown the network larger parts
_TRIED = 60  # images on which they are tried
_BEGINNING = 5.0  # seconds in which the model is read again
_SPARE = 1.2  # times what it takes, as it is an estimate
_STRIDE = 32  # of the coarsest level: sides of crops are multiples of it
PIXELS = {"cpu": 176 * 1024, "cuda": 512 * 1024, "mps": 384 * 512}  # of a crop at most, by device
_PANOPTIC_PIXELS = {"cpu": 80 * 1024, "cuda": 512 * 1024, "mps": 256 * 384}
_SEEN = {"cpu": 352 * 1024, "cuda": 2048 * 1024, "mps": 768 * 512}  # pixels of an image as the network sees it
_UNLIKE = 2  # times the usual side, from which on images are brought to one
_SMALL_THING = 20.0  # pixels of side, below which images are enlarged
_ALIKE = 1.25  # how much longer the longest side of all may be than the shortest: one size then fits all images
_THIN = 0.4  # share of the classes
_LARGER = (1.75, 1.5, 1.25)
_EPOCHS = 30  # that must be left of the time when images are enlarged
_NO_UP = 1.5  # times chance, below which turned images lie where they were: nuclei 1.4, COCO 2.8, CamVid 13


def seconds_to_try(num_val: int, validation: float) -> float:
    """What it takes to try all `FACTORS` on some images, and then score all at the largest; as a whole `validation`.

    0 where there are too few images to tell sizes apart.
    """
    if num_val < FEWEST:
        return 0.0
    areas = [factor**2 for factor in FACTORS]
    return _BEGINNING + _SPARE * validation * (sum(areas) * min(1.0, _TRIED / num_val) + areas[-1])


def sizes_of(data: Fingerprint, device: str, given: Mapping[str, Any], *, panoptic: bool) -> Iterator[Choice]:
    """Scale of the images, crop, and how both vary."""
    height, width = data.size
    seen, small, factor, why = _SEEN[device], data.thing_sides[1], 1.0, ""
    if panoptic and 0 < small < _SMALL_THING:
        factor = min(2.0, _SMALL_THING / small)
        why = f"things of {small:.0f} pixels (median) are small for a network of stride 4"
    if data.dataset == "raster":  # predicted in windows at its own resolution
        factor, why = 1.0, ""
    elif height * width * factor**2 > seen:
        factor = math.sqrt(seen / (height * width))
        why = f"images of {width}×{height} have more pixels than {device} learns from in time"
    elif data.largest > _UNLIKE * max(data.size):
        why = f"one image has a side of {data.largest} pixels, where {width}×{height} is usual"
    if why:
        side = max(2, round(max(data.size) * factor / _STRIDE)) * _STRIDE
        yield Choice(key="data.scale", value=(side, side), reason=why)
        height, width = round(height * factor), round(width * factor)
    if given.get("data.scale"):
        factor = scale_factor(data, given["data.scale"])
        height, width = round(data.size[0] * factor), round(data.size[1] * factor)
    most = (_PANOPTIC_PIXELS if panoptic else PIXELS)[device]
    crop = fitting_crop(height, width, most)
    whole = crop[0] * crop[1] >= 0.8 * height * width
    yield Choice(key="data.crop", value=crop, reason=f"{'nearly all' if whole else 'a part'} of an image of "
                 f"{width}×{height}, of at most {most >> 10} × 1024 pixels a sample on {device}")  # fmt: skip
    if panoptic:
        why = "things keep their size and shape (recipe panoptic_folder)"
        varied = {"data.ratio": (0.8, 1.25), "data.cat_max_ratio": 1.0, "data.aspect": 1.0, "data.photometric": 0.5}
    elif whole:
        why = "images are seen nearly whole, so variety is in how they are enlarged (recipe camvid_lite0)"
        varied = {"data.ratio": (0.75, 1.75), "data.cat_max_ratio": 1.0, "data.aspect": 1.2, "data.photometric": 1.0}
    else:
        why = "parts of images are seen: the published range and rule, and a stretch"
        varied = {"data.ratio": (0.5, 2.0), "data.cat_max_ratio": 0.75, "data.aspect": 1.2, "data.photometric": 1.0}
    yield from fixed((why, varied))
    why = "rasters are seen from above" if data.dataset == "raster" and not data.turned else ""
    if 0 < data.turned < _NO_UP:
        why = f"turned, classes and light lie {data.turned:.1f} times as far apart as by chance: no up and down"
    if why and given.get("data.flip", 1):  # who wants no mirror images knows of a direction
        yield Choice(key="data.rotate90", value=0.75, reason=why)


def scale_factor(data: Fingerprint, scale: tuple[int, int] | None) -> float:
    """How much larger the network sees an image than it is."""
    return min(max(scale) / max(data.size), min(scale) / min(data.size)) if scale else 1.0


def fitting_crop(height: int, width: int, most: int) -> tuple[int, int]:
    """The largest crop of an image, in multiples of 32, of at most `most` pixels; long images lose length first."""

    def down(side: float) -> int:
        return max(64, int(side) // _STRIDE * _STRIDE)

    if down(height) * down(width) <= most:
        return down(height), down(width)
    short = min(height, width, math.sqrt(most))
    long = most / short
    return (down(short), down(long)) if height <= width else (down(long), down(short))


def alike(data: Fingerprint) -> bool:
    """Whether one size could be that of all images."""
    return data.largest <= _ALIKE * data.smallest


def enlarged(data: Fingerprint, machine: Machine, minutes: float, given: Mapping[str, Any]) -> list[Choice]:
    """Choices of a Semantic FPN for thin regions, where the time allows to see all images often at a larger size."""
    height, width = data.size
    if data.dataset == "raster" or data.thin < _THIN or not alike(data) or {"data.scale", "data.crop"} & set(given):
        return []
    often = 60 * minutes * machine.pixels_per_s / (height * width * data.num_train)
    for factor in _LARGER:
        if height * width * factor**2 <= _SEEN[machine.device] and often >= _EPOCHS * factor**2:
            side = round(max(height, width) * factor / _STRIDE) * _STRIDE
            why = (f"regions of {data.thin:.0%} of the classes are narrower than 10 pixels, and the time is enough to "
                   f"see all images {often / factor**2:.0f} times at {factor:g} times their size")  # fmt: skip
            scale = Choice(key="data.scale", value=(side, side), reason=why)
            return [scale, *sizes_of(data, machine.device, {**given, "data.scale": scale.value}, panoptic=False)]
    return []
