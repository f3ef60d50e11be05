"""What the files of a submission are called, and where the benchmarks keep the truth. In: paths of images."""

import re
from collections import Counter
from pathlib import Path

_CITYSCAPES = re.compile(r"([^_]+_\d{6}_\d{6})(_leftImg8bit)?")


def cityscapes_frame(image: Path) -> str:
    """CITY_SEQ_FRAME of an image's name; ValueError for another name."""
    match = _CITYSCAPES.fullmatch(image.stem)
    if not match:
        raise ValueError(f"{image}: its name is not CITY_SEQ_FRAME_leftImg8bit, by which the server knows it")
    return match[1]


def unique(stems: list[str]) -> list[str]:
    """The stems themselves; ValueError if there are two of one name."""
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise ValueError(f"two images would be written as {twice[0]}.png, and a submission is one flat folder")
    return stems


def beside(image: Path, first: str, second: str, stem: str) -> Path | None:
    """STEM.png in the folder that is called `second` where the image's is called `first`; None if it is not there."""
    parts = list(image.resolve().parts)
    if first not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index(first)] = second
    truth = Path(*parts).with_name(f"{stem}.png")
    return truth if truth.is_file() else None
