"""Semantic FPN as the standard measure of a backbone on ADE20K: one recipe for each setting that is in use.

Each takes any timm backbone (`--model.backbone NAME`; `--model.drop-path 0` for one without stochastic depth); 512×512
crops, single-scale mIoU. None of them was run here yet: the scores are the publishers'. "40k" and "80k" are not one
setting: how many crops each sees is said, as tables that mix 1.28 and 2.56 million compare two things.
"""

from typing import Any

from panfpn.config import Data, Inference, Loss, Model, Optim, Run, Train, TrainConfig


def probe_ade20k(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in PVT's setting, the usual one: AdamW 1e-4, 80k steps of 16 crops.

    Command: panfpn train probe_ade20k --data.root DIR --model.backbone pvt_v2_b2
    On 4 GPUs: torchrun --nproc-per-node 4 -m panfpn train probe_ade20k --data.root DIR
    Hardware: memory and hours not published. Sees 1.28 million crops (80,000 × 16).
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
    Hardware: 8 V100, 4.2 GB each with S12 and AMP (mmsegmentation); hours not published. Sees 1.28 million crops
    (40,000 × 32).
    Score: published mIoU of S12 37.2, S24 40.3, S36 42.0, M36 42.4, M48 42.7 (PoolFormer's repository).
    mmsegmentation 1.2.2 trains the same with AMP and its own poly: 36.68, 40.12, 41.61, 41.95, 42.43.
    Also EfficientFormer-L1 38.9, -L3 43.5, -L7 45.1, SwiftFormer-L1 41.4, -L3 43.9 and, by their papers, FastViT-SA12
    38.0, -SA24 41.0, -SA36 42.9, -MA36 44.6 (weights under Apple's licence), InceptionNeXt-T 43.1, -S 45.6, -B 46.4
    (stochastic depth 0.1, 0.2, 0.2) and PVTv2-B0 37.2, -B1 42.5, -B2 45.2, -B3 47.3, -B4 47.9, -B5 48.7 (0.1).
    """
    return _probe("probe_ade20k_poolformer", "poolformer_s12", lr=2e-4, steps=40_000, batch_size=32).changed(**changes)


def probe_ade20k_twins(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in mmsegmentation's setting for Twins: AdamW 1e-4 throughout, 80k steps of 32 crops.

    Command: panfpn train probe_ade20k_twins --data.root DIR --model.backbone twins_svt_small
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_twins --data.root DIR
    Hardware: 8 V100, 5.8 GB each with SVT-S; hours not published. Sees 2.56 million crops (80,000 × 32).
    Score: published mIoU (with six scales and mirror images) of SVT-S 44.47 (45.42), SVT-B 46.77 (47.47), SVT-L 46.55
    (47.74), PCPVT-S 43.26 (44.11), PCPVT-B 45.66 (46.48), PCPVT-L 45.94 (46.70): metafile of mmsegmentation's
    configs/twins.
    The rate is constant since those files take over poly with a floor of 1e-4, which is the rate itself. Twins' own
    repository has a floor of 1e-6 (`--optim.schedule poly --optim.min-lr 1e-6 --optim.mmcv-0x`), its paper reports
    SVT-S 43.2; in Twins' setting Swin-T has 41.5, -S 45.2, -B 46.0. Images are not padded when predicting;
    stochastic depth is 0.2 (SVT-L: 0.3).
    """
    config = _probe("probe_ade20k_twins", "twins_svt_small", lr=1e-4, steps=80_000, batch_size=32, drop_path=0.2)
    constant = {
        "optim.schedule": "constant",
        "optim.mmcv_0x": False,
        "data.size_divisor": 1,
        "inference.stretch": False,
    }
    return config.changed(**constant).changed(**changes)


def probe_ade20k_repvit(**changes: Any) -> TrainConfig:
    """ADE20K as PoolFormer's setting, with a rate that ends at 1e-6: RepViT's, EfficientFormerV2's and iFormer's.

    Command: panfpn train probe_ade20k_repvit --data.root DIR --model.backbone repvit_m1_1
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_repvit --data.root DIR
    Hardware: 8 GPUs; memory and hours not published. Sees 1.28 million crops (40,000 × 32).
    Score: published mIoU of RepViT-M1.1 40.6, -M1.5 43.6, -M2.3 46.1 (distilled weights); EfficientFormerV2-S2 42.4,
    iFormer-M 42.4, -L 44.5, -L2 46.2 (each from its repository or paper; iFormer trained with mmsegmentation 1.x:
    `--optim.mmcv-0x False`).
    """
    config = _probe("probe_ade20k_repvit", "repvit_m1_1", lr=2e-4, steps=40_000, batch_size=32)
    return config.changed(**{"optim.min_lr": 1e-6}).changed(**changes)


def probe_ade20k_nextvit(**changes: Any) -> TrainConfig:
    """ADE20K in Next-ViT's setting: AdamW 1e-4 that ends at 1e-6, 40k steps of 32 crops, tested without alignment.

    Command: panfpn train probe_ade20k_nextvit --data.root DIR --model.backbone nextvit_small
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_nextvit --data.root DIR
    Hardware: 8 GPUs; memory and hours not published. Sees 1.28 million crops (40,000 × 32).
    Score: published mIoU of Next-ViT-S 46.5, -B 48.6, -L 49.1; with weights of 6 million images 48.8, 50.2, 50.5.
    Its configuration names no stochastic depth; 0.1 here is a choice.
    """
    config = _probe("probe_ade20k_nextvit", "nextvit_small", lr=1e-4, steps=40_000, batch_size=32, drop_path=0.1)
    plain = {"optim.min_lr": 1e-6, "data.size_divisor": 1, "inference.stretch": False}
    return config.changed(**plain).changed(**changes)


def probe_ade20k_moganet(**changes: Any) -> TrainConfig:
    """ADE20K in MogaNet's setting: AdamW 2e-4, 80k steps of 32 crops.

    Command: panfpn train probe_ade20k_moganet --data.root DIR --model.backbone convnext_tiny
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_moganet --data.root DIR
    Hardware: 8 GPUs; memory and hours not published. Sees 2.56 million crops (80,000 × 32), twice what PVT's does.
    Score: published mIoU of MogaNet-XT 40.3, -T 43.1, -S 47.7, -B 49.3, -L 50.2 (its repository), stochastic depth
    0.05, 0.1, 0.1, 0.2, 0.3; timm has no MogaNet.
    """
    config = _probe("probe_ade20k_moganet", "convnext_tiny", lr=2e-4, steps=80_000, batch_size=32, drop_path=0.1)
    return config.changed(**changes)


def probe_ade20k_uniformer(**changes: Any) -> TrainConfig:
    """ADE20K with any backbone in UniFormer's setting: AdamW 2e-4, warm-up and cosine, 80k steps of 32 crops.

    Command: panfpn train probe_ade20k_uniformer --data.root DIR --model.backbone caformer_s18
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_uniformer --data.root DIR
    Hardware: 8 GPUs with 4 crops each. Sees 2.56 million crops (80,000 × 32), twice what PVT's setting does.
    Score: published mIoU of UniFormer-S 46.6, -B 48.0, -XS 44.4, -XXS 42.3 (UniFormer's repository), of BiFormer-S
    48.9, -B 49.9 and TransXNet-T 45.5, -S 48.5, -B 49.9 in the same setting.
    timm has no UniFormer; the CAFormer that stands in is of the same kind: convolutions, then attention in the last two
    stages. Stochastic depth is 0.1 (-B: 0.2).
    """
    config = _probe("probe_ade20k_uniformer", "caformer_s18", lr=2e-4, steps=80_000, batch_size=32, drop_path=0.1)
    cosine = {"optim.schedule": "cosine", "optim.min_lr": 2e-12, "optim.warmup_steps": 1000, "optim.warmup_factor": 0.1}
    return config.changed(**cosine).changed(**changes)


def probe_ade20k_xcit(**changes: Any) -> TrainConfig:
    """ADE20K in XCiT's setting, for transformers of one stride: AdamW 6e-5, norms not decayed, 80k steps of 16 crops.

    Command: panfpn train probe_ade20k_xcit --data.root DIR --model.backbone xcit_small_12_p16_224
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train probe_ade20k_xcit --data.root DIR
    Hardware: 8 GPUs with 2 crops each. Sees 1.28 million crops (80,000 × 16).
    Score: published mIoU with patches of 16 pixels (8): T12 38.1 (39.9), S12 43.9 (44.2), S24 44.6 (47.1), M24 45.9
    (46.9) (XCiT's repository). The pyramid is as wide as the network: `--model.fpn-channels` 192 for T12, 384 for S12
    and S24, 512 for M24; blocks are 3 5 7 11, of networks with 24 `--model.blocks 7 11 15 23`; stochastic depth is 0
    (T12), 0.05 (S12), 0.1 (S24), 0.2 (M24). Images are not aligned when predicting.
    """
    config = _single("probe_ade20k_xcit", "xcit_small_12_p16_224", drop_path=0.05).changed(
        **{"model.blocks": (3, 5, 7, 11), "model.fpn_channels": 384, "optim.no_decay": ("backbone.*.norm?.*",)}
    )
    return config.changed(**{"data.size_divisor": 1, "inference.stretch": False}).changed(**changes)


def vit_ade20k(**changes: Any) -> TrainConfig:
    """ADE20K with a plain transformer, fine-tuned whole: mmsegmentation's rates for ViT and DeiT on Semantic FPN.

    Command: panfpn train vit_ade20k --data.root DIR --model.backbone deit_small_patch16_224
    On 8 GPUs: torchrun --nproc-per-node 8 -m panfpn train vit_ade20k --data.root DIR
    Hardware: not measured. Sees 1.28 million crops (80,000 × 16).
    Score: none is published for this head; with UPerNet and twice the steps ViT-B reaches 47.7, DeiT-S 42.9
    (mmsegmentation). Norms, positions and class tokens are not decayed, biases are; for weights of BEiT or MAE take
    `--optim.layer-decay 0.9` or 0.65.
    """
    config = _single("vit_ade20k", "deit_small_patch16_224", drop_path=0.1)
    kept = ("backbone.*norm*", "backbone.*pos_embed*", "backbone.*cls_token*")
    return config.changed(**{"optim.no_decay": kept}).changed(**changes)


def dinov3_frozen(**changes: Any) -> TrainConfig:
    """ADE20K with a frozen DINOv3: only pyramid and head learn, at the rate of DINOv3's own linear probe.

    Command: panfpn train dinov3_frozen --data.root DIR --model.backbone vit_small_patch16_dinov3
    Hardware: not measured. Sees 640,000 crops (40,000 × 16).
    Score: none is published for this head.
    The maps are of four blocks after the network's last norm, and stay in evaluation mode. With `--data.variants 4
    --train.cache-gb 1000` they are computed once. The weights are under Meta's DINOv3 licence, and so is what is made
    of them: a release carries the name of it.
    """
    config = _single("dinov3_frozen", "vit_small_patch16_dinov3").changed(
        **{
            "model.final_norm": True, "train.freeze_at": "all", "data.photometric": 0.0, "optim.lr": 1e-3,
            "optim.weight_decay": 1e-3, "optim.schedule": "cosine", "optim.min_lr": 0.0, "optim.mmcv_0x": False,
            "train.steps": 40_000, "run.val_every": 4_000, "run.checkpoint_every": 4_000,
        }
    )  # fmt: skip
    return config.changed(**changes)


def _single(name: str, backbone: str, *, drop_path: float = 0.0) -> TrainConfig:
    """XCiT's setting, which is Swin's and mmsegmentation's for plain transformers."""
    config = _probe(name, backbone, lr=6e-5, steps=80_000, batch_size=16, drop_path=drop_path)
    return config.changed(
        **{"optim.weight_decay": 0.01, "optim.power": 1.0, "optim.warmup_steps": 1500, "optim.warmup_factor": 1e-6}
    )


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
