"""Semantic FPN as the standard measure of a backbone on ADE20K: one recipe for each setting that is in use.

Each takes any timm backbone (`--model.backbone NAME`; `--model.drop-path 0` for one without stochastic depth); 512×512
crops, single-scale mIoU. None of them was run here yet: the scores are the publishers'.
"""

from typing import Any

from panfpn.config import Data, Inference, Loss, Model, Optim, Run, Train, TrainConfig


def probe_ade20k(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in PVT's setting, the usual one: AdamW 1e-4, 80k steps of 16 crops.

    Command: panfpn train probe_ade20k --data.root DIR --model.backbone pvt_v2_b2
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train probe_ade20k --data.root DIR
    Hardware: memory and hours not published.
    Score: published mIoU of PVT-Small 39.8, ResNet-50 36.7 (arXiv 2102.12122, Table 5); for pvt_v2_b2 see its paper.
    That is the paper's setting. PVT's repository runs 8 GPUs with twice the rate, half the steps and twice the crops
    (PVT-Small 41.9): `--optim.lr 2e-4 --train.steps 40000 --train.batch-size 32`; its ResNets train by SGD (rate 0.02,
    weight decay 5e-4). Stochastic depth 0.1 is that of its networks' definitions.
    """
    return _probe("probe_ade20k", "pvt_v2_b2", lr=1e-4, steps=80_000, batch_size=16, drop_path=0.1).changed(**changes)


def probe_ade20k_poolformer(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in PoolFormer's setting: AdamW 2e-4, 40k steps of 32 crops.

    Command: panfpn train probe_ade20k_poolformer --data.root DIR --model.backbone poolformer_s12
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_poolformer --data.root DIR
    Hardware: 8 V100, 4.2 GB each with S12 and AMP (mmsegmentation); hours not published.
    Score: published mIoU of S12 37.2, S24 40.3, S36 42.0, M36 42.4, M48 42.7 (PoolFormer's repository).
    mmsegmentation 1.2.2 trains the same with AMP and its own poly: 36.68, 40.12, 41.61, 41.95, 42.43.
    """
    return _probe("probe_ade20k_poolformer", "poolformer_s12", lr=2e-4, steps=40_000, batch_size=32).changed(**changes)


def probe_ade20k_twins(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in mmsegmentation's setting for Twins: AdamW 1e-4 throughout, 80k steps of 32 crops.

    Command: panfpn train probe_ade20k_twins --data.root DIR --model.backbone twins_svt_small
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_twins --data.root DIR
    Hardware: 8 V100, 5.8 GB each with SVT-S; hours not published.
    Score: published mIoU (with six scales and mirror images) of SVT-S 44.47 (45.42), SVT-B 46.77 (47.47), SVT-L 46.55
    (47.74), PCPVT-S 43.26 (44.11), PCPVT-B 45.66 (46.48), PCPVT-L 45.94 (46.70): metafile of mmsegmentation's
    configs/twins.
    The rate is constant since those files take over poly with a floor of 1e-4, which is the rate itself. Twins' own
    repository has a floor of 1e-6 (`--optim.schedule poly --optim.min-lr 1e-6 --optim.mmcv-0x`), its paper reports
    SVT-S 43.2. Images are not padded when predicting; stochastic depth is 0.2 (SVT-L: 0.3).
    """
    config = _probe("probe_ade20k_twins", "twins_svt_small", lr=1e-4, steps=80_000, batch_size=32, drop_path=0.2)
    constant = {
        "optim.schedule": "constant",
        "optim.mmcv_0x": False,
        "data.size_divisor": 1,
        "inference.stretch": False,
    }
    return config.changed(**constant).changed(**changes)


def probe_ade20k_uniformer(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in UniFormer's setting: AdamW 2e-4, warm-up and cosine, 80k steps of 16 crops.

    Command: panfpn train probe_ade20k_uniformer --data.root DIR --model.backbone caformer_s18
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_uniformer --data.root DIR
    Hardware: 8 GPUs; memory and hours not published.
    Score: published mIoU of UniFormer-S 46.6, -B 48.0, -XS 44.4, -XXS 42.3 (UniFormer's repository).
    timm has no UniFormer; the CAFormer that stands in is of the same kind: convolutions, then attention in the last two
    stages. Stochastic depth is 0.1 (-B: 0.2). The repository names 2e-4 as its rate for 8 GPUs, but the file with its
    images per GPU could not be read: 16 crops a step is not confirmed by it.
    """
    config = _probe("probe_ade20k_uniformer", "caformer_s18", lr=2e-4, steps=80_000, batch_size=16, drop_path=0.1)
    cosine = {"optim.schedule": "cosine", "optim.min_lr": 2e-12, "optim.warmup_steps": 1000, "optim.warmup_factor": 0.1}
    return config.changed(**cosine).changed(**changes)


def _probe(name: str, backbone: str, *, lr: float, steps: int, batch_size: int, drop_path: float = 0.0) -> TrainConfig:
    """PVT's setting, which the others follow; the schedule is mmcv 0.x's, with which these repositories trained."""
    return TrainConfig(
        data=Data(dataset="ade20k", crop=(512, 512), scale=(2048, 512), size_divisor=32, num_workers=4),
        model=Model(backbone=backbone, pretrained=True, drop_path=drop_path),
        loss=Loss(denominator="all"),
        optim=Optim(name="adamw", lr=lr, weight_decay=1e-4, schedule="poly", power=0.9, min_lr=0.0, mmcv_0x=True),
        train=Train(steps=steps, batch_size=batch_size, precision="float32"),
        run=Run(name=name, val_every=steps // 10, checkpoint_every=steps // 10),
        inference=Inference(stretch=True),
    )
