"""Train on a folder of your own (docs/guide/data.md) and label a photo.

usage: python examples/finetune_folder.py ROOT PHOTO [STEPS]
"""

import sys

import panfpn

root, photo = sys.argv[1:3]
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
config = panfpn.recipes.folder(
    data__root=root, train__steps=steps, optim__warmup_steps=min(100, steps // 4), run__name="finetuned"
)
result = panfpn.train(config)
assert result.scores is not None, "the run was interrupted"
print({name: round(float(iou), 3) for name, iou in zip(result.scores.names, result.scores.iou, strict=True)})
panfpn.Predictor.from_file(result.dir)(photo).save("labelled")
