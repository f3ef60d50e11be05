"""Segment one photo with a panoptic model. usage: python examples/panoptic_image.py MODEL PHOTO"""

import sys

from panfpn import PanopticMap, Predictor

model, photo = sys.argv[1:]  # a release file or run folder of `panfpn train panoptic_scenes`, say
prediction = Predictor.from_file(model)(photo)
assert isinstance(prediction, PanopticMap), "a model of things and stuff"
for segment in prediction.info:
    score = f"{segment.score:6.1%}" if segment.score is not None else " stuff"
    print(f"{segment.id:4} {segment.name:<16} {score} {segment.area:8} pixels")
print(*prediction.save("labelled", what=("panoptic", "overlay")), sep="\n")
