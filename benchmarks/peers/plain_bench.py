"""The side (see side.py) of libraries that give a network and no more: smp.FPN, torchvision's fcn_resnet50.

Around it stands what every user writes: normalise, resize, forward, logits to the image's size, argmax.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from side import seconds, serve

STATE: dict = {}


def load(network: str, num_classes: int, device: str = "cpu", size: tuple[int, int] | None = None) -> None:
    """`network` is smp or torchvision, with random weights; `size` is what the network is to see."""
    torch.manual_seed(0)
    if network == "smp":
        import segmentation_models_pytorch as smp

        model = smp.FPN("resnet50", encoder_weights=None, classes=num_classes)
    else:
        from torchvision.models.segmentation import fcn_resnet50

        model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)
    STATE.update(model=model.eval().to(device), device=device, size=tuple(size) if size else None)
    STATE["mean"] = torch.tensor([123.675, 116.28, 103.53], device=device).view(3, 1, 1)
    STATE["std"] = torch.tensor([58.395, 57.12, 57.375], device=device).view(3, 1, 1)


@torch.inference_mode()
def label(pixels: np.ndarray) -> np.ndarray:
    height, width = STATE["size"] or pixels.shape[:2]
    resized = (
        pixels
        if pixels.shape[:2] == (height, width)
        else np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    )
    image = torch.from_numpy(resized).to(STATE["device"]).permute(2, 0, 1)[None]
    image = F.pad((image - STATE["mean"]) / STATE["std"], (0, -width % 32, 0, -height % 32))  # smp takes no other
    logits = STATE["model"](image)
    logits = (logits["out"] if isinstance(logits, dict) else logits)[:, :, :height, :width]
    if logits.shape[2:] != pixels.shape[:2]:
        logits = F.interpolate(logits, size=pixels.shape[:2], mode="bilinear", align_corners=False)
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()


def predict(image: str, save: str | None = None) -> float:
    pixels = np.load(image)
    found = []
    taken = seconds(lambda: found.append(label(pixels)), STATE["device"])
    if save:
        np.save(save, found[0])
    return taken


if __name__ == "__main__":
    serve({"load": load, "predict": predict})
