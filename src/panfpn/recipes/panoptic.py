"""Panoptic FPN: detectron2's three trainings on COCO, the paper's two on Cityscapes, and what runs on a small machine.

Those on COCO and Cityscapes were not run here yet: hardware, memory and scores are the publishers'. Sources: the
COCO-PanopticSegmentation configurations and model zoo of detectron2; Panoptic Feature Pyramid Networks, arXiv
1901.02446, §4.1 and Table 3.
"""

from typing import Any

from panfpn.config import Data, Inference, Loss, Model, Optim, Run, Train, TrainConfig


def panoptic_scenes(**changes: Any) -> TrainConfig:
    """Panoptic FPN on procedural street scenes: 4 classes of things, 5 of stuff; needs ImageNet weights.

    Command: panfpn train panoptic_scenes
    Hardware: 2 CPU cores (AVX512-BF16), 31 minutes with other programs beside it; 1.7 GB.
    Score: PQ 82.7 on 64 held-out scenes (things 77.2, stuff 87.0; mIoU 92.1). After 300 of its 1200 steps: 74.5.
    Without a network: `--model.pretrained False --model.start-from camvid_lite0`, the model that ships with panfpn.
    """
    config = _small(
        "panoptic_scenes", steps=1200,
        data=Data(
            dataset="scenes", crop=(160, 224), ratio=(0.8, 1.25), cat_max_ratio=1.0, photometric=0.5, num_workers=1,
            scenes=(4000, 64),
        ),
        inference=Inference(stuff_area=64),
    )  # fmt: skip
    return config.changed(**changes)


def panoptic_folder(**changes: Any) -> TrainConfig:
    """Panoptic FPN on a folder of one's own: images/SPLIT, instances/SPLIT (and masks/SPLIT), labels.yaml.

    Command: panfpn train panoptic_folder --data.root DIR
    Hardware: one CPU core (AVX512-BF16), 22 minutes; 2.0 GB.
    Score: PQ of nuclei 72.4 on 50 held-out images of DSB2018 (150 for training; benchmarks/panoptic_trainings.py).
    Images are fitted into 512×512 pixels (`--data.scale`), also small ones: things of 10 pixels want to be enlarged.
    """
    config = _small(
        "panoptic_folder", steps=800,
        data=Data(
            dataset="folder", crop=(256, 256), scale=(512, 512), ratio=(0.8, 1.25), cat_max_ratio=1.0,
            photometric=0.5, num_workers=1,
        ),
        inference=Inference(stuff_area=64, detections=300),
    )  # fmt: skip
    return config.changed(**changes)


def panoptic_r50_coco_1x(**changes: Any) -> TrainConfig:
    """COCO, 80 classes of things and 53 of stuff, ResNet-50, as detectron2 published it: 90k steps of 16 images.

    Command: panfpn train panoptic_r50_coco_1x --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train panoptic_r50_coco_1x --data.root DIR
    Hardware: 8 V100, 4.8 GB each, 0.304 s a step: 7.6 hours.
    Score: published PQ 39.4, box AP 37.6, mask AP 34.7 (the paper's, at this schedule: PQ 39.0, Table 3).
    Other than detectron2's: the ImageNet weights are torchvision's first ones, whose ResNet strides in its 3×3
    convolutions; neither norms nor biases decay (detectron2: no norms); images are resized by OpenCV.
    """
    return _coco("panoptic_r50_coco_1x", "resnet50.tv_in1k", 90_000, (60_000, 80_000)).changed(**changes)


def panoptic_r50_coco_3x(**changes: Any) -> TrainConfig:
    """COCO, 80 classes of things and 53 of stuff, ResNet-50, as detectron2 published it: 270k steps of 16 images.

    Command: panfpn train panoptic_r50_coco_3x --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train panoptic_r50_coco_3x --data.root DIR
    Hardware: 8 V100, 4.8 GB each, 0.302 s a step: 23 hours.
    Score: published PQ 41.5, box AP 40.0, mask AP 36.5. What differs: see panoptic_r50_coco_1x.
    """
    return _coco("panoptic_r50_coco_3x", "resnet50.tv_in1k", 270_000, (210_000, 250_000)).changed(**changes)


def panoptic_r101_coco_3x(**changes: Any) -> TrainConfig:
    """COCO, 80 classes of things and 53 of stuff, ResNet-101, as detectron2 published it: 270k steps of 16 images.

    Command: panfpn train panoptic_r101_coco_3x --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train panoptic_r101_coco_3x --data.root DIR
    Hardware: 8 V100, 6.0 GB each, 0.392 s a step: 29 hours.
    Score: published PQ 43.0, box AP 42.4, mask AP 38.5. What differs: see panoptic_r50_coco_1x.
    """
    return _coco("panoptic_r101_coco_3x", "resnet101.tv_in1k", 270_000, (210_000, 250_000)).changed(**changes)


def panoptic_r50_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 8 classes of things and 11 of stuff, ResNet-50, as in the paper: 65k steps of 32 crops of 512×1024.

    Command: panfpn train panoptic_r50_cityscapes --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train panoptic_r50_cityscapes --data.root DIR
    Hardware: 8 GPUs of 4 crops; memory and hours not published.
    Score: published PQ 57.7 (things 51.6, stuff 62.2), mIoU 75.0, AP 32.0 (Table 3); median of 5 runs. Nobody has
    released weights. The semantic branch has every class (§3.1). λi 0.5 and λs 1 follow from equal rows of Tables 2
    and 3; the paper gives neither momentum nor weight decay: 0.9 and 1e-4 are chosen here, none on norms and biases.
    """
    return _cityscapes("panoptic_r50_cityscapes", "resnet50.tv_in1k").changed(**changes)


def panoptic_r101_cityscapes(**changes: Any) -> TrainConfig:
    """Cityscapes, 8 classes of things and 11 of stuff, ResNet-101, as in the paper: 65k steps of 32 crops of 512×1024.

    Command: panfpn train panoptic_r101_cityscapes --data.root DIR
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train panoptic_r101_cityscapes --data.root DIR
    Hardware: 8 GPUs of 4 crops; memory and hours not published.
    Score: published PQ 58.1 (things 52.0, stuff 62.5), mIoU 75.7, AP 33.0 (Table 3). What is chosen here: see
    panoptic_r50_cityscapes.
    """
    return _cityscapes("panoptic_r101_cityscapes", "resnet101.tv_in1k").changed(**changes)


def _small(name: str, *, steps: int, data: Data, inference: Inference) -> TrainConfig:
    """A small network, from ImageNet weights, in minutes on two cores."""
    return TrainConfig(
        data=data,
        model=Model(
            architecture="PanopticFPN", backbone="tf_efficientnet_lite0", pretrained=True, fpn_channels=128,
            norm="group", dropout=0.0, anchor_scale=4.0, box_channels=512, mask_channels=128,
        ),
        optim=Optim(
            name="adamw", lr=1.5e-3, weight_decay=0.01, decay_norm_bias=False, min_lr=0.0, warmup_steps=50,
            clip_norm=5.0,
        ),
        train=Train(steps=steps, batch_size=8, rois=64),
        run=Run(name=name, log_every=20, val_every=300, checkpoint_every=100),
        inference=inference,
    )  # fmt: skip


def _coco(name: str, backbone: str, steps: int, milestones: tuple[int, ...]) -> TrainConfig:
    return TrainConfig(
        data=Data(
            dataset="coco_panoptic", train_split="train2017", val_split="val2017", crop=None, scale=(1333, 800),
            short_sides=(640, 672, 704, 736, 768, 800), cat_max_ratio=1.0, photometric=0.0, instances="json",
            num_workers=4,
        ),
        model=Model(
            architecture="PanopticFPN", backbone=backbone, pretrained=True, norm="group", dropout=0.0
        ),
        loss=Loss(cross_entropy=0.5),
        optim=Optim(
            name="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, decay_norm_bias=False, schedule="step",
            milestones=milestones, warmup_steps=1000,
        ),
        train=Train(steps=steps, batch_size=16, precision="float32", frozen_bn=True, freeze_at=2),
        run=Run(name=name, val_every=steps // 6, checkpoint_every=5_000),
    )  # fmt: skip


def _cityscapes(name: str, backbone: str) -> TrainConfig:
    return TrainConfig(
        data=Data(dataset="cityscapes", crop=(512, 1024), cat_max_ratio=1.0, photometric=0.0, num_workers=4),
        model=Model(
            architecture="PanopticFPN", backbone=backbone, pretrained=True, norm="group", dropout=0.0,
            semantic_things="all",
        ),
        loss=Loss(cross_entropy=1.0, instance=0.5),
        optim=Optim(
            name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4, decay_norm_bias=False, schedule="step",
            milestones=(40_000, 55_000),
        ),
        train=Train(steps=65_000, batch_size=32, precision="float32", frozen_bn=True),
        run=Run(name=name, val_every=5_000, checkpoint_every=5_000),
    )  # fmt: skip
