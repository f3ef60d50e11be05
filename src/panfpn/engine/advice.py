"""What whoever starts a training should know first. In: data sets and settings. Out: notes, a sentence each."""

from panfpn.config import TrainConfig
from panfpn.data import Dataset
from panfpn.data.census import census, same_images


def about_data(train_data: Dataset, val_data: Dataset, config: TrainConfig) -> list[str]:
    """What of the data is left out, and what they lack; ValueError if there is nothing to learn in them."""
    notes: list[str] = []
    for split, data in (("training", train_data), ("validation", val_data)):
        notes += getattr(data, "notes", ())
        left_out = getattr(data, "left_out", None)
        if left_out is not None and left_out.counts:
            notes.append(f"left out of the {split} data: {left_out}")
    if not len(train_data):
        return notes
    counted, settings = census(train_data, channels=config.model.in_channels), config.data
    notes += counted.notes()
    if same := same_images(train_data, val_data):
        notes.append(f"note: {len(same)} of {len(val_data)} validation images are training images too ({same[0][1]} is "
                     f"{same[0][0]}), so scores are too good; panfpn data check finds more")  # fmt: skip
    if settings.crop and not settings.scale:
        most = tuple(int(side * settings.ratio[1]) for side in counted.largest)
        if all(side < wanted for side, wanted in zip(most, settings.crop, strict=True)):
            notes.append(
                f"note: no image that was looked at reaches data.crop {settings.crop[0]}×{settings.crop[1]}: with "
                f"data.ratio they have up to {most[0]}×{most[1]} pixels, and the rest is padding"
            )
    return notes


def about_settings(config: TrainConfig) -> list[str]:
    """Settings that work against each other."""
    optim = config.optim
    if optim.schedule not in ("poly", "cosine") or optim.min_lr < optim.lr:
        return []
    return [
        f"note: optim.min_lr {optim.min_lr:g} is not below optim.lr {optim.lr:g}, so the learning rate does not fall"
    ]
