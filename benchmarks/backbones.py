"""Which timm networks carry Semantic FPN? Builds each, runs it at awkward sizes, and writes docs/backbones.md.

    python benchmarks/backbones.py [NAME ...]    # with names: prints their rows and writes nothing

Every row marked "ok" was run: forward and backward in training mode on two images of 97x131, then forward on one of
64x96 and one of 320x448; each parameter received a gradient, and the logits have one value per 4x4 pixels.
"""

import argparse
import math
import warnings
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from panfpn.models import SemanticFPN

FAMILIES = {
    "ResNet": "resnet18 resnet50 resnet50c resnet101c resnet50d resnet50_msra",
    "ResNeXt, SE, ECA, SK, split attention": "resnext50_32x4d seresnet50 ecaresnet26t skresnet18 resnest14d",
    "Res2Net": "res2net50_26w_4s",
    "ConvNeXt": "convnext_tiny convnextv2_atto",
    "EfficientNet": "tf_efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0",
    "MobileNet": "mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small mobileone_s0",
    "RegNet": "regnetx_008 regnety_008",
    "Swin": "swin_tiny_patch4_window7_224 swin_base_patch4_window12_384 swinv2_tiny_window8_256 swinv2_cr_tiny_ns_224",
    "PVT v2": "pvt_v2_b0 pvt_v2_b2",
    "MetaFormer": "poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18",
    "Twins": "twins_pcpvt_small twins_svt_small",
    "MaxViT, CoAtNet": "maxvit_pico_rw_256 maxvit_tiny_tf_224 coatnet_0_rw_224",
    "HRNet": "hrnet_w18_small",
    "DLA": "dla34",
    "GhostNet": "ghostnet_100",
    "MobileViT": "mobilevit_s mobilevitv2_100",
    "EdgeNeXt": "edgenext_small",
    "FastViT": "fastvit_t8",
    "EfficientFormer": "efficientformer_l1 efficientformerv2_s0",
    "InceptionNeXt, MambaOut": "inception_next_tiny mambaout_femto",
    "Next-ViT": "nextvit_small",
    "Hiera": "hiera_tiny_224 sam2_hiera_tiny",
    "DaViT, FocalNet, TinyViT, MViTv2": "davit_tiny focalnet_tiny_srf tiny_vit_5m_224 mvitv2_tiny",
    "EfficientViT, RepViT, FasterNet, StarNet": "efficientvit_b0 repvit_m1 fasternet_t0 starnet_s1",
    "VGG": "vgg11_bn vgg16_bn",
    "DenseNet, DPN, VoVNet": "densenet121 dpn68 ese_vovnet19b_dw",
    "CSP, Darknet": "cspdarknet53 cs3darknet_m darknet53",
    "RepVGG": "repvgg_a0",
    "TResNet": "tresnet_m",
    "NFNet, HGNet, ReXNet, Xception": "eca_nfnet_l0 hgnetv2_b0 rexnet_100 xception41",
    "One stride only": "vit_small_patch16_224 xcit_nano_12_p16_224",
    "Other refusals": "gcvit_xxtiny coat_tiny botnet26t_256 inception_v3",
}
NUM_CLASSES = 19
HEADER = """# Backbones

`SemanticFPN(backbone=NAME)` and `Backbone(NAME)` take any timm network that has feature maps at strides 4, 8, 16 and 32
and can run at any image size. Nothing is listed in the code: a network is tried when it is built, and refused with a
reason if its maps do not fit. The table is a sample, written by `python benchmarks/backbones.py` with torch {torch} and
timm {timm}: {ok} of {all} networks run, the others are refused as shown.

Names beside timm's: `resnet18c` and `resnet34c` (mmsegmentation's deep stem), `resnet50_msra` and `resnet101_msra` (the
stride in the first 1×1 convolution of a stage, as in detectron2's models); timm's hub has no weights for these.

- **ok**: forward and backward in training mode on two images of 97x131, forward at 64x96 and 320x448, every parameter
  with a gradient.
- **M**: millions of parameters, of the maps' network alone (without its classifier) and of the whole Semantic FPN with
  {classes} classes.
- **GMACs**: 10⁹ multiply-adds of the whole Semantic FPN for one image of 512x512, padding included (half of what
  `torch.utils.flop_counter` counts: convolutions and matrix products).
- **multiple**: the image is padded with zeros on the right and below to a multiple of this, and the maps are cropped
  again. 1 = never padded, the maps are those of timm to the last bit. Networks with windows that cannot be cut
  (MaxViT) are dear at sizes just above a multiple: choose a crop that is one.

| network | backbone M | total M | GMACs | c2…c5 | multiple | |
|---|--:|--:|--:|---|--:|---|
"""


def row(name: str) -> tuple[bool, str]:
    """Whether `name` runs, and its row of the table."""
    try:
        network = SemanticFPN(name, NUM_CLASSES)
    except ValueError as refusal:
        return False, f"| `{name}` | | | | | | {str(refusal).split('; ')[0]} |"
    run(network)
    with torch.device("meta"):
        shadow, image = SemanticFPN(name, NUM_CLASSES).eval(), torch.zeros(1, 3, 512, 512)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(image)
    backbone, total = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (network.backbone, network))
    macs = counter.get_total_flops() / 2e9
    widths, multiple = ", ".join(map(str, network.backbone.channels)), network.backbone.multiple
    return True, f"| `{name}` | {backbone:.1f} | {total:.1f} | {macs:.1f} | {widths} | {multiple} | ok |"


def run(network: SemanticFPN) -> None:
    """Raise if the network does not train and predict at sizes that divide by nothing."""
    check(network.train()(torch.randn(2, 3, 97, 131)), 97, 131).square().mean().backward()
    idle = [parameter for parameter, tensor in network.named_parameters() if tensor.grad is None]
    if idle:
        raise RuntimeError(f"{network.backbone.name}: {len(idle)} parameters without a gradient, such as {idle[0]}")
    network.eval()
    with torch.no_grad():
        for height, width in ((64, 96), (320, 448)):
            check(network(torch.randn(1, 3, height, width)), height, width)


def check(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The logits, once they are known to be finite and of stride 4, rounded down or up."""
    exact = (height / 4, width / 4)
    fits = all(got in (math.floor(e), math.ceil(e)) for got, e in zip(logits.shape[2:], exact, strict=True))
    if not fits or not logits.isfinite().all():
        raise RuntimeError(f"{height}x{width}: logits {tuple(logits.shape)}, finite: {bool(logits.isfinite().all())}")
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="timm names; without any, the whole table is made and written")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "backbones.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[str] = []
    ok = 0
    for name in arguments.names or " ".join(FAMILIES.values()).split():
        runs, line = row(name)
        ok += runs
        rows.append(line)
        print(line, flush=True)
    if not arguments.names:
        versions = {"torch": torch.__version__.split("+")[0], "timm": timm.__version__}
        header = HEADER.format(**versions, ok=ok, all=len(rows), classes=NUM_CLASSES)
        arguments.out.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
