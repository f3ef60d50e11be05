"""The peers' side of protocols.py, run inside each peer's environment: their own functions on the cases it is given.

usage: python protocols_peers.py PEER ASKED ANSWERED SOURCES
"""

import importlib.util
import json
import sys
import tarfile
import tempfile
import types
from importlib import metadata
from pathlib import Path

import numpy as np

IGNORED = 255  # what the peers ignore; 255 is no value of any case


def flatten(summary: dict, classes: dict) -> dict[str, float]:
    per_class = {f"{key}/{k}": float(v) for key, values in classes.items() for k, v in enumerate(values)}
    return {key: float(value) for key, value in summary.items()} | per_class


def module(name: str, **content) -> types.ModuleType:
    """Put a stand-in for a module that the peer imports and does not need here."""
    made = types.ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made
    return made


def mmseg(sources: Path):
    import mmcv
    import torch

    mmcv.__version__ = "2.1.0"  # mmsegmentation 1.2.2 refuses a newer one, which it works with
    from mmseg.evaluation.metrics.iou_metric import IoUMetric

    def score(num_classes: int, images: list) -> dict[str, float]:
        metric = IoUMetric(ignore_index=IGNORED, iou_metrics=["mIoU", "mDice", "mFscore"])
        metric.dataset_meta = {"classes": [str(k) for k in range(num_classes)]}
        for found, true in images:
            maps = ({"data": torch.from_numpy(m)[None]} for m in (found, np.where(true < 0, IGNORED, true)))
            metric.process({}, [dict(zip(("pred_sem_seg", "gt_sem_seg"), maps, strict=True))])
        totals = [sum(areas) for areas in zip(*metric.results, strict=True)]
        classes = metric.total_area_to_metrics(*totals, metric.metrics)
        classes.pop("aAcc")
        return flatten(metric.compute_metrics(metric.results), {k: 100 * v for k, v in classes.items()})

    return score, f"mmsegmentation {metadata.version('mmsegmentation')}"


def detectron2(sources: Path):
    """The evaluator of the 0.5 sdist with the one rule that main has changed since: which classes' IoU is averaged.

    0.5 divides by the number of classes that are true or predicted, main by that of those that are true. Only this
    file is loaded: the rest of the package has to be compiled.
    """
    import torch
    from PIL import Image

    np.int, np.float = int, float  # of its time
    with tarfile.open(next(sources.glob("detectron2_cdo*.tar.gz"))) as sdist:
        member = next(n for n in sdist.getnames() if n.endswith("/evaluation/sem_seg_evaluation.py"))
        code = sdist.extractfile(member).read().decode()
    old, new = "iou_valid = (pos_gt + pos_pred) > 0", "iou_valid = acc_valid"
    assert code.count(old) == 1
    module("pycocotools").mask = module("pycocotools.mask")
    for name in ("detectron2", "detectron2.utils", "detectron2.evaluation"):
        module(name).__path__ = []
    module("detectron2.data", DatasetCatalog=None, MetadataCatalog=None)
    module("detectron2.utils.comm", all_gather=None, is_main_process=None, synchronize=None)
    module("detectron2.utils.file_io", PathManager=types.SimpleNamespace(open=open))
    module("detectron2.evaluation.evaluator", DatasetEvaluator=object)
    loaded = module("detectron2.evaluation.sem_seg_evaluation", __package__="detectron2.evaluation")
    exec(compile(code.replace(old, new), member, "exec"), loaded.__dict__)

    class Evaluator(loaded.SemSegEvaluator):
        def __init__(self, num_classes: int, masks: dict) -> None:  # without its catalogue of data sets
            self._logger = types.SimpleNamespace(info=lambda _: None)
            self._distributed, self._output_dir, self._cpu_device = False, None, torch.device("cpu")
            self._num_classes, self._ignore_label, self.input_file_to_gt_file = num_classes, IGNORED, masks
            self._class_names = [str(k) for k in range(num_classes)]
            self.reset()

        def encode_json_sem_seg(self, sem_seg, input_file_name) -> list:
            return []

    def score(num_classes: int, images: list) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as box:
            masks = {str(i): f"{box}/{i}.png" for i in range(len(images))}
            evaluator = Evaluator(num_classes, masks)
            for name, (found, true) in zip(masks, images, strict=True):
                # Its matrix has room for one value more than the classes, K, which in the truth means ignored.
                found, true = found.clip(max=num_classes), np.where(true < 0, IGNORED, true.clip(max=num_classes))
                Image.fromarray(true.astype(np.uint8)).save(masks[name])
                votes = torch.nn.functional.one_hot(torch.from_numpy(found), num_classes + 1).permute(2, 0, 1)
                evaluator.process([{"file_name": name}], [{"sem_seg": votes}])
            result = evaluator.evaluate()["sem_seg"]
        summary = {key: value for key, value in result.items() if "-" not in key}
        per_class = {key.replace("-", "/"): value for key, value in result.items() if "-" in key}
        return flatten(summary | per_class, {})

    return score, "detectron2 0.5 with main's mIoU"


def cityscapes(sources: Path):
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as peer  # noqa: N813
    from cityscapesscripts.helpers.labels import labels, trainId2label
    from PIL import Image

    peer.args.evalInstLevelScore, peer.args.JSONOutput, peer.args.quiet = False, False, True
    ids = np.array([trainId2label[k].id for k in range(19)])
    void = np.array([label.id for label in labels if label.ignoreInEval and label.id >= 0])

    def encode(values: np.ndarray, num_classes: int) -> np.ndarray:
        """Label ids; what is no class becomes one of the labels that it does not score."""
        return np.where(
            (values >= 0) & (values < num_classes), ids[values.clip(0, 18)], void[values % len(void)]
        ).astype(np.uint8)

    def score(num_classes: int, images: list) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as box:
            lists = [], []
            for i, pair in enumerate(images):
                for files, values, what in zip(lists, pair, ("found", "true"), strict=True):
                    files.append(f"{box}/{i}_{what}.png")
                    Image.fromarray(encode(values, num_classes)).save(files[-1])
            result = peer.evaluateImgLists(*lists, peer.args)
        classes = [result["classScores"][trainId2label[k].name] for k in range(num_classes)]
        return flatten({"averageScoreClasses": result["averageScoreClasses"]}, {"classScores": classes})

    return score, f"cityscapesScripts {metadata.version('cityscapesscripts')}"


def hf(sources: Path):
    sys.modules.setdefault("evaluate", module("evaluate", Metric=object, MetricInfo=None))
    decorator = types.SimpleNamespace(add_start_docstrings=lambda *_: lambda made: made)
    sys.modules["evaluate"].utils = types.SimpleNamespace(file_utils=decorator)
    module("datasets")
    spec = importlib.util.spec_from_file_location("mean_iou", sources / "mean_iou.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)

    def score(num_classes: int, images: list) -> dict[str, float]:
        found = [found for found, _ in images]
        true = [np.where(true < 0, IGNORED, true) for _, true in images]
        result = peer.mean_iou(found, true, num_labels=num_classes, ignore_index=IGNORED)
        classes = {key: result.pop(key) for key in ("per_category_iou", "per_category_accuracy")}
        return flatten(result, classes)

    return score, "evaluate's mean_iou.py"


def smp(sources: Path):
    import segmentation_models_pytorch as package
    import torch
    from segmentation_models_pytorch import metrics as peer

    names = ("iou_score", "f1_score", "accuracy", "precision", "recall")

    def score(num_classes: int, images: list) -> dict[str, float]:
        stats = []
        for found, true in images:
            maps = torch.from_numpy(found)[None], torch.from_numpy(true)[None]
            stats.append(peer.get_stats(*maps, mode="multiclass", ignore_index=-1, num_classes=num_classes))
        parts = [torch.cat(part) for part in zip(*stats, strict=True)]  # tp, fp, fn, tn [N, K]
        summary, classes = {}, {}
        for name in names:
            function = getattr(peer, name)
            for reduction in ("micro", "macro", "micro-imagewise", "macro-imagewise"):
                summary[f"{name}/{reduction}"] = function(*parts, reduction=reduction)
            classes[name] = function(*(part.sum(0, keepdim=True) for part in parts), reduction=None)[0]
        return flatten(summary, classes)

    return score, f"segmentation_models_pytorch {package.__version__}"


def main() -> None:
    name, asked, answered, sources = sys.argv[1:]
    score, version = {f.__name__: f for f in (mmseg, detectron2, cityscapes, hf, smp)}[name](Path(sources))
    with np.errstate(all="ignore"):
        cases = json.loads(Path(asked).read_text())
        answers = {
            key: score(num_classes, [(np.array(found), np.array(true)) for found, true in images])
            for key, (num_classes, images) in cases.items()
        }
    Path(answered).write_text(json.dumps(answers | {"version": version}))


if __name__ == "__main__":
    main()
