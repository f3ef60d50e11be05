"""Train on a folder of one's own (docs/guide/data.md) and label a photo.

usage: python examples/finetune_folder.py ROOT PHOTO
"""

import sys
from pathlib import Path

import panfpn

root, photo = Path(sys.argv[1]), sys.argv[2]
config = panfpn.recipes.folder(data__root=root, run__name="finetuned")
result = panfpn.train(config)
assert result.scores is not None, "the run was interrupted"
print({name: round(float(iou), 3) for name, iou in zip(result.scores.names, result.scores.iou, strict=True)})
panfpn.Predictor.from_file(result.dir)(photo).save("labelled")
