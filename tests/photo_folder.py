"""A folder of photos that differ, one of them broken, and what was made of one: for tests of bulk prediction."""

import hashlib
from pathlib import Path

import cv2
import numpy as np


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """`count` photos of a size (height, width), and broken.png."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"photo_{i:02d}.png"), rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the pictures in a folder, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")}  # fmt: skip
