"""Losses of Semantic FPN. In: stride-4 logits [B, K, h, w] and train ids [B, H, W]. Out: one scalar per term.

Every term sees only labelled pixels (gradient exactly zero elsewhere) and is 0 with zero gradients when there are none.
Full-resolution logits never exist: see `panfpn.ops`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from panfpn.labels import IGNORE
from panfpn.ops import Place, each_tile, sum_over_tiles, upsample_cross_entropy, with_gradient


@dataclass(frozen=True, kw_only=True)
class SemanticLoss:
    """A weighted sum of cross-entropy, OHEM, Dice, Lovász-softmax and focal loss.

    `weights` maps those names to factors; terms with factor 0 are not computed. `denominator` "labelled" divides the
    pixel-wise terms by the number of labelled pixels, "all" by the number of pixels, as mmsegmentation does.
    """

    weights: Mapping[str, float]
    denominator: str = "labelled"
    class_weights: torch.Tensor | None = None  # [K]
    label_smoothing: float = 0.0
    ohem_threshold: float = 0.7
    ohem_min_kept: float = 0.0625
    focal_gamma: float = 2.0

    def __call__(
        self, logits: torch.Tensor, target: torch.Tensor, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Weighted terms by name.

        `pixels` replaces the counted denominator of the pixel-wise terms where it spans ranks and micro-batches;
        `share` scales the terms that are means over this batch (1 / number of micro-batches).
        """
        pixels = self.count(target).clamp(min=1) if pixels is None else pixels
        terms = {
            "cross_entropy": lambda: self._cross_entropy(logits, target) / pixels,
            "focal": lambda: self._focal(logits, target) / pixels,
            "ohem": lambda: self._ohem(logits, target) * share,
            "dice": lambda: self._dice(logits, target) * share,
            "lovasz": lambda: self._lovasz(logits, target) * share,
        }
        return {name: factor * terms[name]() for name, factor in self.weights.items() if factor}

    def count(self, target: torch.Tensor) -> torch.Tensor:
        """What this batch adds to the denominator of the pixel-wise terms."""
        if self.denominator == "all":
            return torch.tensor(target.numel(), device=target.device)
        return (target != IGNORE).sum()

    def _weights(self, logits: torch.Tensor) -> torch.Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(logits.device)

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return upsample_cross_entropy(
            logits, target, weights=self._weights(logits), label_smoothing=self.label_smoothing
        )

    def _focal(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(1 − p)^γ × cross-entropy; Lin et al. 2017."""
        weights = self._weights(logits)

        def tile_sum(tile: torch.Tensor, place: Place) -> torch.Tensor:
            truth = target[place].long()
            loss = _pixel_cross_entropy(tile, truth)
            weight = -torch.expm1(-loss)  # 1 − p
            weighted = loss * weight.clamp(min=1e-12) ** self.focal_gamma
            if weights is not None:
                weighted = weighted * weights[truth.clamp(min=0)]
            return weighted.sum()

        return sum_over_tiles(logits, _size(target), tile_sum)

    def _ohem(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the hard pixels: true class below `ohem_threshold`, at least `ohem_min_kept` of them.

        Its denominator is the number of kept pixels of this rank and micro-batch: which pixels are hard is local.
        """
        losses = torch.empty(target.shape, device=logits.device)

        def keep(tile: torch.Tensor, place: Place) -> None:
            losses[place] = _pixel_cross_entropy(tile, target[place].long()).float()

        each_tile(logits, _size(target), keep)
        labelled = target != IGNORE
        hard = losses.new_tensor(self.ohem_threshold).log().neg()  # −log p of a pixel at the threshold
        kept = int(self.ohem_min_kept * int(labelled.sum()))
        if kept:
            hard = torch.minimum(hard, losses[labelled].topk(kept).values[-1])
        chosen = torch.where(labelled & (losses >= hard), target, IGNORE)
        count = (chosen != IGNORE).sum().clamp(min=1)
        return upsample_cross_entropy(logits, chosen, weights=self._weights(logits)) / count

    def _dice(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """1 − mean over the classes present of 2Σpy / (Σp² + Σy), over the batch; Milletari et al. 2016."""
        classes = logits.shape[1]
        labelled = target != IGNORE
        present = torch.bincount(target[labelled].long(), minlength=classes).float()  # [K] Σy
        seen = present > 0
        sums = torch.zeros(2, classes, device=logits.device)  # Σpy, Σp²

        def read(tile: torch.Tensor, place: Place) -> tuple[torch.Tensor, torch.Tensor]:
            """Probabilities [rows, K, columns], 0 where unlabelled, and the true class [rows, 1, columns]."""
            return tile.softmax(1) * labelled[place][:, None], target[place].long().clamp(min=0)[:, None]

        def add(tile: torch.Tensor, place: Place) -> None:
            p, true = read(tile, place)
            sums[0].index_add_(0, true.flatten(), p.gather(1, true).flatten().float())
            sums[1] += p.square().sum((0, 2))

        each_tile(logits, _size(target), add)
        with torch.enable_grad():
            sums.requires_grad_()
            dice = 2 * sums[0] / (sums[1] + present).clamp(min=1e-6)
            loss = torch.where(seen, 1 - dice, 0).sum() / seen.sum().clamp(min=1)
            (slope,) = torch.autograd.grad(loss, sums)  # [2, K]

        def differentiate(tile: torch.Tensor, place: Place) -> torch.Tensor:
            p, true = read(tile, place)
            inner = (2 * slope[1])[:, None] * p  # by p; where unlabelled, p is 0 and so is all that follows
            inner.scatter_add_(1, true, slope[0][true].to(p))
            return p * (inner - (p * inner).sum(1, keepdim=True))  # by the logits, through the softmax

        gradient = each_tile(logits, _size(target), differentiate) if logits.requires_grad else logits
        return with_gradient(logits, loss.detach(), gradient)

    def _lovasz(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Lovász extension of the Jaccard loss, mean over the classes present; Berman et al. 2018.

        The loss is Σ error × weight, where the weights come from sorting and count as constants; so its gradient is
        that of Σ_k slope_k · logit_k − (Σ_k slope_k) · logsumexp, taken one class at a time.
        """
        size, labelled = _size(target), target != IGNORE
        normaliser = _map_of(logits, size, lambda tile: tile.logsumexp(1))  # [B, H, W]
        total = torch.zeros_like(normaliser)
        loss = torch.zeros((), device=logits.device)
        gradient = torch.zeros_like(logits)
        present = torch.unique(target[labelled]).tolist()
        with torch.no_grad():
            for k in present:
                one = logits[:, k : k + 1]
                p = (_map_of(one, size, lambda tile: tile[:, 0]) - normaliser).exp()
                truth = (target == k)[labelled].float()  # [N]
                error = (truth - p[labelled]).abs()
                weight = _lovasz_weights(error, truth)
                loss += (error * weight).sum()
                slope = torch.zeros_like(total)
                slope[labelled] = weight * (1 - 2 * truth) * p[labelled]
                total += slope
                gradient[:, k : k + 1] = each_tile(one, size, lambda _, place, s=slope: s[place][:, None])  # type: ignore[misc]
            gradient -= each_tile(logits, size, lambda tile, place: tile.softmax(1) * total[place][:, None])
        count = max(1, len(present))
        return with_gradient(logits, loss / count, gradient / count)


def _map_of(
    logits: torch.Tensor, size: tuple[int, int], function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """A value per pixel [B, H, W] of tiles [rows, K, columns]."""
    found = torch.empty((len(logits), *size), device=logits.device)

    def keep(tile: torch.Tensor, place: Place) -> None:
        found[place] = function(tile).float()

    each_tile(logits, size, keep)
    return found


def _lovasz_weights(error: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Steps of the Jaccard loss as pixels [N] are taken in order of falling error; Berman et al., algorithm 1."""
    order = error.argsort(descending=True)
    truth = truth[order]
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return torch.empty_like(steps).index_copy(0, order, steps)


def _size(target: torch.Tensor) -> tuple[int, int]:
    return int(target.shape[1]), int(target.shape[2])


def _pixel_cross_entropy(tile: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """[rows, columns] of a tile [rows, K, columns]; 0 where unlabelled."""
    return F.cross_entropy(tile, truth, ignore_index=IGNORE, reduction="none")
