"""Files that run without panfpn, a file for each format, found by their suffix in `panfpn.choices.FORMATS`.

In: a module whose sizes are symbols (or were traced), and a release's header. Out: a file; and of a file, a `Program`.
"""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}  # of the formats' files
