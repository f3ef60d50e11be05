"""The published Semantic FPN trainings on ResNets: mmsegmentation's four, and the paper's own on Cityscapes.

None of them was run here yet: hardware, memory and scores are the publishers'. Configurations: `configs/sem_fpn` of
mmsegmentation 1.2.2; Panoptic Feature Pyramid Networks, arXiv 1901.02446, §4.1.
"""

from typing import Any

from panfpn.config import Data, Loss, Model, Optim, Run, Train, TrainConfig


def fpn_r50_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 19 classes, ResNet-50, as mmsegmentation published it: 80k steps of 8 crops of 512×1024.

    Command: panfpn train fpn_r50_cityscapes --data.root DIR
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train fpn_r50_cityscapes --data.root DIR
    Hardware: 4 V100, 2.8 GB each; hours not published.
    Score: published mIoU 74.52; 76.08 with six scales and mirror images.
    """
    return _cityscapes("fpn_r50_cityscapes", "resnet50c").changed(**changes)


def fpn_r101_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 19 classes, ResNet-101, as mmsegmentation published it: 80k steps of 8 crops of 512×1024.

    Command: panfpn train fpn_r101_cityscapes --data.root DIR
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train fpn_r101_cityscapes --data.root DIR
    Hardware: 4 V100, 3.9 GB each; hours not published.
    Score: published mIoU 75.80; 77.40 with six scales and mirror images.
    """
    return _cityscapes("fpn_r101_cityscapes", "resnet101c").changed(**changes)


def fpn_r50_ade20k(**changes: Any) -> TrainConfig:
    """ADE20K, 150 classes, ResNet-50, as mmsegmentation published it: 160k steps of 16 crops of 512×512.

    Command: panfpn train fpn_r50_ade20k --data.root DIR
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train fpn_r50_ade20k --data.root DIR
    Hardware: 4 V100, 4.9 GB each; hours not published.
    Score: published mIoU 37.49; 39.09 with six scales and mirror images.
    """
    return _ade20k("fpn_r50_ade20k", "resnet50c").changed(**changes)


def fpn_r101_ade20k(**changes: Any) -> TrainConfig:
    """ADE20K, 150 classes, ResNet-101, as mmsegmentation published it: 160k steps of 16 crops of 512×512.

    Command: panfpn train fpn_r101_ade20k --data.root DIR
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train fpn_r101_ade20k --data.root DIR
    Hardware: 4 V100, 5.9 GB each; hours not published.
    Score: published mIoU 39.35; 40.72 with six scales and mirror images. (mmsegmentation 1.2.2's own file of that name
    assigns `model` twice and so builds a ResNet-50; the published weights are a ResNet-101's, and so is this.)
    """
    return _ade20k("fpn_r101_ade20k", "resnet101c").changed(**changes)


def paper_r50_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 19 classes, ResNet-50, as in the paper (§4.1): 65k steps of 32 crops of 512×1024.

    Command: panfpn train paper_r50_cityscapes --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train paper_r50_cityscapes --data.root DIR
    Hardware: 8 GPUs of 4 crops; memory and hours not published.
    Score: published mIoU 74.5 (Table 1c, head width 128), median of 5 runs that vary by up to 0.4.
    The paper gives neither momentum nor weight decay: 0.9 and 1e-4, none on norms and biases, are chosen here, nor does
    it speak of mirror images (½ here, as detectron2), dropout or warm-up (none here). Its ResNet is the one of 2015,
    with torchvision's first weights here. Colours are left alone: it distorts them for its largest networks only.
    """
    return _paper("paper_r50_cityscapes", "resnet50.tv_in1k").changed(**changes)


def paper_r101_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 19 classes, ResNet-101, as in the paper (§4.1): 65k steps of 32 crops of 512×1024.

    Command: panfpn train paper_r101_cityscapes --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train paper_r101_cityscapes --data.root DIR
    Hardware: 8 GPUs of 4 crops; memory and hours not published.
    Score: published mIoU 77.7 (Table 1a). The paper trains its largest networks with distorted colours and with crops
    drawn anew where they are hard, without giving constants; whether this is one of them stays open. Neither is done
    here. What else is chosen: see paper_r50_cityscapes.
    """
    return _paper("paper_r101_cityscapes", "resnet101.tv_in1k").changed(**changes)


def _cityscapes(name: str, backbone: str) -> TrainConfig:
    return _mmsegmentation(
        name, backbone, steps=80_000, batch_size=8,
        data=Data(dataset="cityscapes", crop=(512, 1024), scale=(2048, 1024), size_divisor=1, num_workers=2),
    )  # fmt: skip


def _ade20k(name: str, backbone: str) -> TrainConfig:
    return _mmsegmentation(
        name, backbone, steps=160_000, batch_size=16,
        data=Data(dataset="ade20k", crop=(512, 512), scale=(2048, 512), size_divisor=1, num_workers=4),
    )  # fmt: skip


def _mmsegmentation(name: str, backbone: str, *, data: Data, steps: int, batch_size: int) -> TrainConfig:
    """What the four have in common; what is not named here is mmsegmentation's by default (panfpn.config)."""
    return TrainConfig(
        data=data,
        model=Model(backbone=backbone, pretrained=True),
        loss=Loss(denominator="all"),
        optim=Optim(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="poly", power=0.9, min_lr=1e-4),
        train=Train(steps=steps, batch_size=batch_size, precision="float32"),
        run=Run(name=name, val_every=steps // 10, checkpoint_every=steps // 10),
    )


def _paper(name: str, backbone: str) -> TrainConfig:
    return TrainConfig(
        data=Data(dataset="cityscapes", crop=(512, 1024), cat_max_ratio=1.0, photometric=0.0),
        model=Model(backbone=backbone, pretrained=True, norm="group", dropout=0.0),
        optim=Optim(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4, decay_norm_bias=False, schedule="step",
                    milestones=(40_000, 55_000)),
        train=Train(steps=65_000, batch_size=32, precision="float32", frozen_bn=True),
        run=Run(name=name, val_every=5_000, checkpoint_every=5_000),
    )  # fmt: skip
