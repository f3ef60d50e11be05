"""Label one photo with the model that ships with panfpn. usage: python examples/predict_image.py PHOTO"""

import sys

from panfpn import Predictor

prediction = Predictor.from_file()(sys.argv[1])
for name, share in prediction.shares().items():
    print(f"{name:<12} {share:6.1%}")
print(*prediction.save("labelled", what=("labels", "overlay")), sep="\n")
