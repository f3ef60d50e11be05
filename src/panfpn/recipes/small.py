"""Recipes that run on a small machine: procedural scenes, CamVid, a folder of one's own."""

from typing import Any

from panfpn.config import Data, Loss, Model, Optim, Run, Train, TrainConfig


def scenes(**changes: Any) -> TrainConfig:
    """Procedural street scenes, 9 classes, from the model that ships with panfpn; needs nothing but the package.

    Command: panfpn train scenes
    Hardware: 2 CPU cores (AVX512-BF16), about 2 minutes. Score: mIoU 0.864 on 64 held-out scenes.
    """
    config = TrainConfig(
        data=Data(
            dataset="scenes", crop=(160, 224), ratio=(1.0, 1.0), cat_max_ratio=1.0, photometric=0.5, num_workers=1
        ),
        model=Model(backbone="tf_efficientnet_lite0", start_from="camvid_lite0", fpn_channels=128, dropout=0.0),
        optim=Optim(
            name="adamw",
            lr=2.5e-3,
            weight_decay=0.01,
            decay_norm_bias=False,
            min_lr=0.0,
            warmup_steps=20,
            clip_norm=5.0,
        ),
        train=Train(steps=300, batch_size=8),
        run=Run(name="scenes", log_every=20, val_every=300, checkpoint_every=100),
    )
    return config.changed(**changes)


def camvid_lite0(**changes: Any) -> TrainConfig:
    """CamVid at 480×360, 11 classes, EfficientNet-Lite0 with ImageNet weights.

    Command: panfpn train camvid_lite0 --data.root DIR --model.backbone-weights tf_efficientnet_lite0.safetensors
    Hardware: 2 CPU cores (AVX512-BF16), 70 minutes (beside other programs), 2.7 GB. Score: mIoU 0.767 on the
    validation split, of one run; 0.735 after 1000 of its own steps in 24 minutes.
    """
    config = TrainConfig(
        data=Data(dataset="camvid", crop=(352, 480), ratio=(0.75, 1.75), aspect=1.2, cat_max_ratio=1.0, num_workers=1),
        model=Model(backbone="tf_efficientnet_lite0", pretrained=True, fpn_channels=128, drop_path=0.05),
        loss=Loss(cross_entropy=1.0, dice=0.5),
        optim=Optim(name="adamw", lr=1.5e-3, weight_decay=0.05, decay_norm_bias=False, min_lr=0.0, warmup_steps=200,
                    backbone_lr_factor=0.5, clip_norm=5.0, ema_decay=0.998),
        train=Train(steps=2400, batch_size=8),
        run=Run(name="camvid_lite0", log_every=20, val_every=500, checkpoint_every=500),
    )  # fmt: skip
    return config.changed(**changes)


def probe(**changes: Any) -> TrainConfig:
    """What `panfpn probe` trains each backbone with: AdamW, 1e-3 for pyramid and head and a tenth of it for the rest.

    Command: panfpn train probe --data.root DIR --model.backbone NAME
    Several backbones side by side: panfpn probe DIR --backbones NAME NAME
    Hardware: any. Score: that of a short training, for comparing; a longer one by another recipe is better.
    """
    config = TrainConfig(
        data=Data(crop=(512, 512), ratio=(0.75, 1.5), cat_max_ratio=0.75, photometric=0.5, num_workers=2),
        model=Model(backbone="resnet50", dropout=0.1),
        optim=Optim(name="adamw", lr=1e-3, weight_decay=0.05, decay_norm_bias=False, backbone_lr_factor=0.1,
                    min_lr=0.0, power=1.0, clip_norm=5.0),
        train=Train(steps=1000, batch_size=8),
        run=Run(name="probe", log_every=20, val_every=1000, checkpoint_every=100),
    )  # fmt: skip
    return config.changed(**changes)


def folder(**changes: Any) -> TrainConfig:
    """Your own photos and masks (docs/guide/data.md), from the model that ships with panfpn.

    Command: panfpn train folder --data.root DIR
    Hardware: any; not measured. Score: depends on the photos.
    """
    config = TrainConfig(
        data=Data(dataset="folder", crop=(384, 384), num_workers=1),
        model=Model(backbone="tf_efficientnet_lite0", start_from="camvid_lite0", fpn_channels=128),
        loss=Loss(cross_entropy=1.0, dice=0.5),
        optim=Optim(name="adamw", lr=1e-3, weight_decay=0.05, decay_norm_bias=False, min_lr=0.0, warmup_steps=100,
                    backbone_lr_factor=0.5, clip_norm=5.0, ema_decay=0.998),
        train=Train(steps=3000, batch_size=8),
        run=Run(name="folder", log_every=20, val_every=500, checkpoint_every=250),
    )  # fmt: skip
    return config.changed(**changes)
