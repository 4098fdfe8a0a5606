"""Per-pixel attack losses: what an adversary raises, one value a pixel.

Every entry of `LOSSES` has the signature `(logits, labels, class_weights, progress) -> (B, H, W)`; `pixel_loss`
checks the call, looks the entry up and zeroes void pixels. To add a loss, write the function and add its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robviz.types import VOID, InputError

Loss = Callable[[Tensor, Tensor, "Tensor | None", float], Tensor]


def label_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y at each pixel, (B, H, W); the value on void pixels means nothing."""
    return logits.log_softmax(1).gather(1, labels.clamp_min(0)[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """-log p_y. Its gradient grows as p_y falls, so broken pixels drown the others (section 3.3)."""
    return -label_log_probability(logits, labels)


def still_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, H, W) bool: the pixels whose largest logit is the label's."""
    # max().indices, not argmax(): seven times faster over channels on a CPU.
    return logits.max(1).indices == labels


def masked_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """-log p_y on the pixels still correct, 0 on the broken ones (section 3.4)."""
    return -label_log_probability(logits, labels) * still_correct(logits, labels)


def balanced_masked_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float
) -> Tensor:
    """Masked cross-entropy times w_y, the inverse of the class's pixel count: aims at the mIoU (section 3.2).

    Raises InputError without class weights.
    """
    if class_weights is None:
        raise InputError("mask-ce-bal needs class_weights (K,), got None; a dataset has them as .class_weights")
    weights = class_weights.to(logits)[labels.clamp_min(0)]
    return weights * masked_cross_entropy(logits, labels, class_weights, progress)


def jensen_shannon(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Jensen-Shannon divergence of p to the one-hot label, within [0, log 2] (section 3.4, appendix A).

    Its gradient vanishes for p_y -> 0 and p_y -> 1 alike, so no mask is needed. Only p_y enters, which keeps
    value and gradient finite at any gap between logits.
    """
    log_p = label_log_probability(logits, labels)
    p = log_p.exp()
    return math.log(2) + (p * log_p - (1 + p) * p.log1p()) / 2


def segpgd(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Cross-entropy times 1 - l on the pixels still correct and l on the broken ones, with l = t / 2T.

    SegPGD (Gu et al., ECCV 2022): from the masked to the plain cross-entropy over the run.
    """
    share = progress / 2
    weights = torch.where(still_correct(logits, labels), 1 - share, share)
    return -label_log_probability(logits, labels) * weights


def cospgd(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Cross-entropy times the cosine between sigmoid(u) and the one-hot label.

    CosPGD (Agnihotri et al., ICML 2024). The cosine, sigmoid(u_y) / |sigmoid(u)|, is formed from logarithms, which
    keeps it finite where every sigmoid underflows; it weighs the pixel and passes no gradient on.
    """
    log_sigmoid = F.logsigmoid(logits.detach())
    log_cosine = log_sigmoid.gather(1, labels.clamp_min(0)[:, None]).squeeze(1) - (2 * log_sigmoid).logsumexp(1) / 2
    return -label_log_probability(logits, labels) * log_cosine.exp()


def spherical(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Minus the label's logit over the L2 norm of the pixel's logits (version 1 of the paper)."""
    # The ratio does not change when all logits are scaled: with the largest at 1, no square overflows.
    largest = logits.detach().abs().amax(1, keepdim=True)
    scaled = logits / largest.where(largest > 0, 1)
    norm = torch.linalg.vector_norm(scaled, dim=1).clamp_min(1)  # below 1 only where all logits are 0
    return -scaled.gather(1, labels.clamp_min(0)[:, None]).squeeze(1) / norm


def masked_spherical(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """The spherical loss on the pixels still correct, 0 on the broken ones (version 1 of the paper)."""
    return spherical(logits, labels, class_weights, progress) * still_correct(logits, labels)


def tsallis(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Tsallis cross-entropy (1 - p_y^(1 - q)) / (1 - q), q rising linearly from -2 to 1 over the run.

    TsallisPGD (IJCNN 2026). Against plain cross-entropy, its limit at q = 1, a pixel pulls p_y^(1 - q) as much:
    confident pixels first, all alike in the end.
    """
    power = 3 * (1 - progress)  # 1 - q
    log_p = label_log_probability(logits, labels)
    return -torch.expm1(power * log_p) / power if power > 1e-6 else -log_p


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "segpgd": segpgd,
    "cospgd": cospgd,
    "mask-ce": masked_cross_entropy,
    "mask-ce-bal": balanced_masked_cross_entropy,
    "js": jensen_shannon,
    "mask-spherical": masked_spherical,
    "tsallis": tsallis,
}
#: The losses that weigh classes and need their weights.
BALANCED = ("mask-ce-bal",)
#: What the step size of APGD follows, where it is not the plain cross-entropy (appendix B.1): the unmasked form.
TRACKED: dict[str, Loss] = {"mask-spherical": spherical}


def pixel_loss(
    name: str, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, progress: float = 0.0
) -> Tensor:
    """Loss of each pixel, 0 where the label is void.

    name: a key of `LOSSES`. logits: (B, K, H, W) float. labels: (B, H, W) int64 in -1 (void) .. K - 1.
    class_weights: (K,) or None, for the balanced losses. progress: t / T in [0, 1], for losses that change
    over the run. Returns (B, H, W). Raises InputError for an unknown name or shapes that do not fit.
    """
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; choose from: {', '.join(LOSSES)}")
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise InputError(
            f"expected logits (B, K, H, W) and labels (B, H, W) of the same B, H, W; "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if class_weights is not None and class_weights.shape != (logits.shape[1],):
        raise InputError(
            f"class_weights must be (K,) = ({logits.shape[1]},), one a class, got {tuple(class_weights.shape)}"
        )
    loss = LOSSES[name](logits, labels, class_weights, progress)
    return loss.masked_fill(labels == VOID, 0)


def tracked_loss(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """What the step size of APGD follows under a loss (appendix B.1), (B, H, W), 0 where the label is void."""
    loss = TRACKED.get(name, cross_entropy)(logits, labels, None, 0.0)
    return loss.masked_fill(labels == VOID, 0)
