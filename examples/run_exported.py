"""Label a PNG with a file of `panfpn export`: numpy and onnxruntime alone, without panfpn and torch.

    python run_exported.py model.onnx photo.png labels.png

Semantic FPN: raw label values, as `panfpn predict` writes them. Panoptic FPN: segment ids as R + 256 G + 65536 B; the
file model_merge.py, which lies beside the model, makes segments of what the network gives.
"""

import json
import runpy
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime


def read_png(path):
    """RGB uint8 [H, W, 3] of an 8-bit RGB file without interlacing."""
    data, start, parts = Path(path).read_bytes(), 8, {}
    while start < len(data):
        length, name = struct.unpack(">I4s", data[start : start + 8])
        parts[name] = parts.get(name, b"") + data[start + 8 : start + 8 + length]
        start += 12 + length
    width, height, bits, kind, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (bits, kind, rest) == (8, 2, [0, 0, 0]), "save the image as 8-bit RGB PNG without interlacing"
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    image, above = np.zeros((height, width, 3), int), np.zeros((width, 3), int)
    for y, (filtering, *values) in enumerate(rows.tolist()):
        row, left, corner = np.array(values).reshape(width, 3), np.zeros(3, int), np.zeros(3, int)
        if filtering < 3:
            row = [row, row.cumsum(0), row + above][filtering] % 256
        else:
            for x in range(width):
                three = np.stack([left, above[x], corner])  # Paeth: the one nearest to the plane through them
                nearest = np.abs(left + above[x] - corner - three).argmin(0)
                guess = (left + above[x]) // 2 if filtering == 3 else np.choose(nearest, three)
                left, corner = (row[x] + guess) % 256, above[x]
                row[x] = left
        image[y] = above = row
    return image.astype(np.uint8)


def write_png(path, pixels):
    """Write uint8 [H, W] or [H, W, 3]."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


def main(model, photo, out):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    header = json.loads(session.get_modelmeta().custom_metadata_map["panfpn"])
    names = [output.name for output in session.get_outputs()]
    arrays = dict(zip(names, session.run(None, {"pixels": read_png(photo)[None]}), strict=True))
    if header["architecture"] == "SemanticFPN":
        values = np.array([c["value"][0] for c in header["table"]["classes"]])
        return write_png(out, values[arrays["labels"][0]].astype(np.uint8))
    merge = runpy.run_path(str(Path(model).with_name(f"{Path(model).stem}_merge.py")))
    ids = merge["segments_of"](arrays, 0, header)[0]
    return write_png(out, np.stack([ids & 255, ids >> 8 & 255, ids >> 16], 2).astype(np.uint8))


if __name__ == "__main__":
    main(*sys.argv[1:])
