"""Segment one photo with a panoptic model. usage: python examples/panoptic_image.py MODEL PHOTO"""

import sys

from panfpn import PanopticMap, Predictor

model, photo = sys.argv[1:]  # a release file or run folder of `panfpn train panoptic_scenes`, say
found = Predictor.from_file(model)(photo)
assert isinstance(found, PanopticMap), "a model of things and stuff"
for segment in found.info:
    score = f"{segment.score:6.1%}" if segment.score is not None else " stuff"
    print(f"{segment.id:4} {segment.name:<16} {score} {segment.area:8} pixels")
print(*found.save("labelled", what=("panoptic", "overlay")), sep="\n")
