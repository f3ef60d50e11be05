"""Losses of Semantic FPN. In: stride-4 logits [B, K, h, w] and train ids [B, H, W]. Out: one scalar per term.

Every term sees only labelled pixels (gradient exactly zero elsewhere) and is 0 with zero gradients when there are none.
Full-resolution logits never exist: see `panfpn.ops`. On CUDA the host waits for nothing: counts stay on the device.

A new term is a function here, with the arguments of the others, and its line in `panfpn.choices.LOSSES`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from panfpn.choices import LOSSES, lookup
from panfpn.config import Loss
from panfpn.labels import IGNORE
from panfpn.ops import Size, TileIndex, each_tile, sum_over_tiles, upsample_cross_entropy, with_gradient


class SemanticLoss(nn.Module):
    """A weighted sum of terms of `panfpn.choices.LOSSES`.

    `weights` maps their names to factors; terms with factor 0 are not computed. `denominator` "labelled" divides the
    pixel-wise terms by the number of labelled pixels, "all" by the number of pixels, as mmsegmentation does.
    `class_weights` [K] are of cross-entropy, OHEM and focal loss. What is not given is as in `config.Loss`.

    Raises:
        ValueError: a term or a denominator that does not exist.
    """

    class_weights: torch.Tensor | None
    __call__: Callable[..., dict[str, torch.Tensor]]

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        denominator: str = Loss.denominator,
        class_weights: torch.Tensor | Sequence[float] | None = None,
        label_smoothing: float = Loss.label_smoothing,
        ohem_threshold: float = Loss.ohem_threshold,
        ohem_min_kept: float = Loss.ohem_min_kept,
        focal_gamma: float = Loss.focal_gamma,
    ) -> None:
        super().__init__()
        if denominator not in ("labelled", "all"):
            raise ValueError(f"denominator is {denominator!r}; choose from labelled, all")
        self.terms: dict[str, Term] = {name: lookup(LOSSES, name, "loss") for name in weights}
        self.weights, self.denominator = dict(weights), denominator
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        self.ohem_threshold, self.ohem_min_kept = ohem_threshold, ohem_min_kept
        if class_weights is not None and not isinstance(class_weights, torch.Tensor):
            class_weights = torch.tensor(class_weights)
        self.register_buffer("class_weights", class_weights, persistent=False)  # it goes where the task goes

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Weighted terms by name.

        `pixels` replaces the counted denominator of the pixel-wise terms where it spans ranks and micro-batches;
        `share` scales the terms that are means over this batch (1 / number of micro-batches).
        """
        pixels = self.count(target).clamp(min=1) if pixels is None else pixels
        return {
            name: factor * self.terms[name](logits, target, self, pixels, share)
            for name, factor in self.weights.items()
            if factor
        }

    def count(self, target: torch.Tensor) -> torch.Tensor:
        """What this batch adds to the denominator of the pixel-wise terms."""
        if self.denominator == "all":
            return target.new_full((), target.numel(), dtype=torch.int64)
        return (target != IGNORE).sum()


# (logits, target, settings, pixels, share) -> scalar; pixels and share as of `SemanticLoss.forward`
Term = Callable[[torch.Tensor, torch.Tensor, SemanticLoss, torch.Tensor, float], torch.Tensor]


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, settings: SemanticLoss, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """Cross-entropy with class weights and label smoothing, as torch has them."""
    total = upsample_cross_entropy(
        logits, target, weights=settings.class_weights, label_smoothing=settings.label_smoothing
    )
    return total / pixels


def focal(
    logits: torch.Tensor, target: torch.Tensor, settings: SemanticLoss, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """(1 − p)^γ × cross-entropy; Lin et al. 2017."""
    weights = settings.class_weights

    def tile_sum(tile: torch.Tensor, index: TileIndex) -> torch.Tensor:
        truth = target[index].long()
        loss = _pixel_cross_entropy(tile, truth)
        weight = -torch.expm1(-loss)  # 1 − p
        weighted = loss * weight.clamp(min=1e-12) ** settings.focal_gamma
        if weights is not None:
            weighted = weighted * weights[truth.clamp(min=0)]
        return weighted.sum()

    return sum_over_tiles(logits, _size(target), tile_sum) / pixels


def ohem(
    logits: torch.Tensor, target: torch.Tensor, settings: SemanticLoss, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """Mean cross-entropy of the hard pixels: true class below `ohem_threshold`, at least `ohem_min_kept` of them.

    Its denominator is the number of kept pixels of this rank and micro-batch: which pixels are hard is local.
    """
    losses = torch.empty(target.shape, device=logits.device)

    def keep(tile: torch.Tensor, index: TileIndex) -> None:
        losses[index] = _pixel_cross_entropy(tile, target[index].long()).float()

    each_tile(logits, _size(target), keep)
    labelled = target != IGNORE
    hard = losses.new_full((), settings.ohem_threshold).log().neg()  # −log p of a pixel at the threshold
    most = int(settings.ohem_min_kept * target.numel())  # pixels kept where all are labelled
    if most:
        # The kept-th largest of the labelled pixels' losses, where only the device knows how many those are.
        exact = torch.float32 if losses.device.type == "mps" else torch.float64
        kept = (labelled.sum().to(exact) * settings.ohem_min_kept).long()
        largest = losses.where(labelled, -1).flatten().topk(most).values
        limit = largest.gather(0, (kept - 1).clamp(min=0)[None])[0]
        hard = torch.where(kept > 0, torch.minimum(hard, limit), hard)
    chosen = torch.where(labelled & (losses >= hard), target, IGNORE)
    count = (chosen != IGNORE).sum().clamp(min=1)
    return upsample_cross_entropy(logits, chosen, weights=settings.class_weights) / count * share


def dice(
    logits: torch.Tensor, target: torch.Tensor, settings: SemanticLoss, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """1 − mean over the classes present of 2Σpy / (Σp² + Σy), over the batch; Milletari et al. 2016."""
    classes = logits.shape[1]
    labelled = target != IGNORE
    counts = torch.zeros(classes, dtype=torch.int64, device=logits.device)  # Σy
    sums = torch.zeros(2, classes, device=logits.device)  # Σpy, Σp²

    def read(tile: torch.Tensor, index: TileIndex) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities [rows, K, columns], 0 where unlabelled, and the true class [rows, 1, columns]."""
        return tile.softmax(1) * labelled[index][:, None], target[index].long().clamp(min=0)[:, None]

    def add(tile: torch.Tensor, index: TileIndex) -> None:
        p, true = read(tile, index)
        counts.index_add_(0, true.flatten(), labelled[index].flatten().long())
        sums[0].index_add_(0, true.flatten(), p.gather(1, true).flatten().float())
        sums[1] += p.square().sum((0, 2))

    each_tile(logits, _size(target), add)
    with torch.enable_grad():
        sums.requires_grad_()
        score = 2 * sums[0] / (sums[1] + counts.float()).clamp(min=1e-6)
        present = counts > 0
        loss = torch.where(present, 1 - score, 0).sum() / present.sum().clamp(min=1)
        (slope,) = torch.autograd.grad(loss, sums)  # [2, K]

    def differentiate(tile: torch.Tensor, index: TileIndex) -> torch.Tensor:
        p, true = read(tile, index)
        inner = (2 * slope[1])[:, None] * p  # by p; where unlabelled, p is 0 and so is all that follows
        inner.scatter_add_(1, true, slope[0][true].to(p))
        return p * (inner - (p * inner).sum(1, keepdim=True))  # by the logits, through the softmax

    gradient = each_tile(logits, _size(target), differentiate) if logits.requires_grad else logits
    return with_gradient(logits, loss.detach(), gradient) * share


def lovasz(
    logits: torch.Tensor, target: torch.Tensor, settings: SemanticLoss, pixels: torch.Tensor, share: float
) -> torch.Tensor:
    """Lovász extension of the Jaccard loss, mean over the classes present; Berman et al. 2018.

    The loss is Σ error × weight, where the weights come from sorting and count as constants; so its gradient is that of
    Σ_k slope_k · logit_k − (Σ_k slope_k) · logsumexp, taken one class at a time.
    """
    size, labelled = _size(target), target != IGNORE
    normaliser = _map_of(logits, size, lambda tile: tile.logsumexp(1))  # [B, H, W]
    total = torch.zeros_like(normaliser)
    loss = torch.zeros((), device=logits.device)
    gradient = torch.zeros_like(logits)
    present, valid = _present_classes(logits, target), _labelled_values(labelled, labelled).float()
    count = torch.zeros((), device=logits.device)
    with torch.no_grad():
        for k in present:
            one = logits[:, k : k + 1]
            p = _labelled_values((_map_of(one, size, lambda tile: tile[:, 0]) - normaliser).exp(), labelled)
            truth = _labelled_values(target == k, labelled).float()  # [N]
            error = (truth - p).abs()
            there = truth.amax()  # 1, or 0: a class that is absent has no part
            weight = _lovasz_weights(error.where(valid > 0, -1), truth) * (valid * there)
            loss += (error * weight).sum()
            count += there
            slope = _as_map(weight * (1 - 2 * truth) * p, labelled)
            total += slope
            gradient[:, k : k + 1] = each_tile(one, size, lambda _, index, s=slope: s[index][:, None])  # type: ignore[misc]
        gradient -= each_tile(logits, size, lambda tile, index: tile.softmax(1) * total[index][:, None])
    count = count.clamp(min=1)
    return with_gradient(logits, loss / count, gradient / count) * share


def _present_classes(logits: torch.Tensor, target: torch.Tensor) -> Sequence[int]:
    """The classes that may have a part: on the CPU those of the labels; elsewhere all, as the host reads nothing."""
    if target.device.type == "cpu":
        return torch.unique(target[target != IGNORE]).tolist()  # type: ignore[no-any-return]
    return range(logits.shape[1])


def _labelled_values(values: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """[N] of a map [B, H, W]: on the CPU those of the labelled pixels; elsewhere all, as their number would be read."""
    return values[labelled] if values.device.type == "cpu" else values.flatten()


def _as_map(values: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """The inverse of `_labelled_values`; 0 where it left pixels out."""
    if values.device.type != "cpu":
        return values.view(labelled.shape)
    result = torch.zeros(labelled.shape)
    result[labelled] = values
    return result


def _map_of(logits: torch.Tensor, size: Size, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A value per pixel [B, H, W] of tiles [rows, K, columns]."""
    values = torch.empty((len(logits), *size), device=logits.device)

    def keep(tile: torch.Tensor, index: TileIndex) -> None:
        values[index] = function(tile).float()

    each_tile(logits, size, keep)
    return values


def _lovasz_weights(error: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Steps of the Jaccard loss as pixels [N] are taken in order of falling error; Berman et al., algorithm 1."""
    order = error.argsort(descending=True)
    truth = truth[order]
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return torch.empty_like(steps).index_copy(0, order, steps)


def _size(target: torch.Tensor) -> Size:
    return int(target.shape[1]), int(target.shape[2])


def _pixel_cross_entropy(tile: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """[rows, columns] of a tile [rows, K, columns]; 0 where unlabelled."""
    return F.cross_entropy(tile, truth, ignore_index=IGNORE, reduction="none")
