"""Per-pixel attack losses: the quantity that an adversary maximises, one value per pixel.

Every entry of `LOSSES` has the signature `(logits, labels, class_weights, progress) -> (B, H, W)`, explained at
`pixel_loss`, which checks its arguments, looks up the entry and sets void pixels to zero. To add a loss, write the
function and add its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from robviz.types import VOID, InputError

__all__ = ["DESCRIPTIONS", "LOSSES", "pixel_loss", "pull", "tracked_loss"]

Loss = Callable[[Tensor, Tensor, "Tensor | None", float], Tensor]


def label_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y of each pixel, (B, H, W); the value on void pixels is meaningless."""
    return logits.log_softmax(1).gather(1, labels.clamp_min(0)[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute -log p_y. Its gradient grows as p_y falls, so broken pixels dominate the others (section 3.3)."""
    return -label_log_probability(logits, labels)


def still_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B, H, W) bool: True where the largest logit is that of the label."""
    # max().indices, not argmax(): seven times faster over channels on a CPU.
    return logits.max(1).indices == labels


def masked_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute -log p_y on the pixels that are still correct, and 0 on the others (section 3.4)."""
    return -label_log_probability(logits, labels) * still_correct(logits, labels)


def balanced_masked_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float
) -> Tensor:
    """Compute the masked cross-entropy times w_y, the inverse pixel count of the class; targets the mIoU (section 3.2).

    Raises:
        InputError: If there are no class weights.
    """
    if class_weights is None:
        raise InputError("mask-ce-bal needs class_weights (K,), got None; a dataset has them as .class_weights")
    weights = class_weights.to(logits)[labels.clamp_min(0)]
    return weights * masked_cross_entropy(logits, labels, class_weights, progress)


def jensen_shannon(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute the Jensen-Shannon divergence of p and the one-hot label, in [0, log 2] (section 3.4, appendix A).

    Its gradient vanishes both for p_y -> 0 and for p_y -> 1, so no mask is needed. It is computed from p_y alone, which
    keeps value and gradient finite whatever the gap between logits.
    """
    log_p = label_log_probability(logits, labels)
    p = log_p.exp()
    return math.log(2) + (p * log_p - (1 + p) * p.log1p()) / 2


def segpgd(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute the cross-entropy times 1 - l on the pixels that are still correct and l on the others, with l = t / 2T.

    SegPGD (Gu et al., ECCV 2022) thus moves from the masked to the plain cross-entropy during the run.
    """
    share = progress / 2
    weights = torch.where(still_correct(logits, labels), 1 - share, share)
    return -label_log_probability(logits, labels) * weights


def cospgd(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute the cross-entropy times the cosine between sigmoid(u) and the one-hot label.

    CosPGD (Agnihotri et al., ICML 2024). The cosine, sigmoid(u_y) / |sigmoid(u)|, is computed from logarithms, which
    keeps it finite where every sigmoid underflows. It weights the pixel and passes no gradient.
    """
    log_sigmoid = F.logsigmoid(logits.detach())
    log_cosine = log_sigmoid.gather(1, labels.clamp_min(0)[:, None]).squeeze(1) - (2 * log_sigmoid).logsumexp(1) / 2
    return -label_log_probability(logits, labels) * log_cosine.exp()


def spherical(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute minus the label's logit over the L2 norm of the pixel's logits (version 1 of the paper)."""
    # The ratio does not change when all logits are scaled: with the largest at 1, no square overflows.
    largest = logits.detach().abs().amax(1, keepdim=True)
    scaled = logits / largest.where(largest > 0, 1)
    norm = torch.linalg.vector_norm(scaled, dim=1).clamp_min(1)  # below 1 only where all logits are 0
    result: Tensor = -scaled.gather(1, labels.clamp_min(0)[:, None]).squeeze(1) / norm
    return result


def masked_spherical(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute the spherical loss on the pixels that are still correct, and 0 on the others (version 1 of the paper)."""
    return spherical(logits, labels, class_weights, progress) * still_correct(logits, labels)


def tsallis(logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float) -> Tensor:
    """Compute the Tsallis cross-entropy (1 - p_y^(1 - q)) / (1 - q), where q rises linearly from -2 to 1 over the run.

    TsallisPGD (IJCNN 2026). Relative to the plain cross-entropy, which is its limit at q = 1, the gradient of a pixel
    is scaled by p_y^(1 - q): confident pixels come first, and in the end it is plain cross-entropy.
    """
    power = 3 * (1 - progress)  # 1 - q
    log_p = label_log_probability(logits, labels)
    return -torch.expm1(power * log_p) / power if power > 1e-6 else -log_p


#: The final temperature of the expected scores, at which a softmax is nearly the decision itself.
SHARPEST = 0.1


def temperature(softest: float, progress: float) -> float:
    """Return the temperature at t / T: from the softest to `SHARPEST`, by the same factor each step."""
    result: float = softest * (SHARPEST / softest) ** progress
    return result


def expected_score(logits: Tensor, labels: Tensor, leave: Tensor, enter: Tensor, tau: float) -> Tensor:
    """Compute the attacker's average gain, the sum over classes j of p_j V[y, j], with p = softmax(z / tau).

    This loss is robviz's own. V[y, j] = leave[y] + enter[j] for j other than y, and V[y, y] = 0: the worth of
    predicting j on a pixel labelled y. As tau falls, the loss tends to the worth of the decision itself. Its gradient
    by z_j, p_j (V[y, j] - loss) / tau, is bounded, whatever the gap between logits. leave, enter: (K,), at least 0.
    tau: above 0. Returns (B, H, W) in 0 .. max leave + max enter.
    """
    p = (logits / tau).softmax(1)
    y = labels.clamp_min(0)
    p_label = p.gather(1, y[:, None]).squeeze(1)
    leave, enter = leave.to(p), enter.to(p)
    return leave[y] * (1 - p_label) + torch.einsum("bkhw,k->bhw", p, enter) - enter[y] * p_label


def expected_error(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float, softest: float = 1.0
) -> Tensor:
    """Compute 1 - p_y at a falling temperature: the expected share of wrong pixels, in [0, 1].

    This loss is robviz's own (`docs/strength.md`): `expected_score` with every error worth 1. It is soft at first, so
    that pixels far from the decision boundary contribute as well, and sharp in the end, when it is nearly the counted
    error.
    """
    p_label = (logits / temperature(softest, progress)).softmax(1).gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
    return 1 - p_label


def expected_miou(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float, softest: float = 1.0
) -> Tensor:
    """Compute `expected_score` at a falling temperature, with the share of the mIoU that an error costs.

    This loss is robviz's own (`docs/strength.md`). A pixel that moves from class y to class j lowers the IoU of both.
    class_weights: (K,), w_j = 1 / N_j, for both, which is correct to first order before any pixel breaks; or (2, K),
    the gains from leaving and from entering a class in the current state of a set (`robviz.blockwise`). Raises
    InputError without class weights.
    """
    if class_weights is None:
        raise InputError("expected-miou needs class_weights (K,), got None; a dataset has them as .class_weights")
    leave, enter = class_weights.expand(2, -1)
    return expected_score(logits, labels, leave, enter, temperature(softest, progress))


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "segpgd": segpgd,
    "cospgd": cospgd,
    "mask-ce": masked_cross_entropy,
    "mask-ce-bal": balanced_masked_cross_entropy,
    "js": jensen_shannon,
    "mask-spherical": masked_spherical,
    "tsallis": tsallis,
    "expected-error": expected_error,
    "expected-error-soft": partial(expected_error, softest=3.0),
    "expected-miou": expected_miou,
    "expected-miou-soft": partial(expected_miou, softest=3.0),
}
#: name -> one line about what the loss does, for menus.
DESCRIPTIONS = {
    "ce": "Cross-entropy: pushes every pixel, and most of all those that are wrong already.",
    "segpgd": "Cross-entropy that starts on correct pixels and weights all alike in the end (SegPGD).",
    "cospgd": "Cross-entropy weighted by how close the logits still are to the right class (CosPGD).",
    "mask-ce": "Cross-entropy of the pixels that are still correct; the others are left alone.",
    "mask-ce-bal": "The same with rare classes weighted more: aims at the mIoU.",
    "js": "Jensen-Shannon divergence: bounded, and weak on pixels that are far from the border.",
    "mask-spherical": "Distance of logits on a sphere, of the correct pixels: blind to how sure the model is.",
    "tsallis": "Cross-entropy that leaves broken pixels alone at first, and no longer in the end (TsallisPGD).",
    "expected-error": "The expected number of wrong pixels; its temperature falls from 1 to 0.1.",
    "expected-error-soft": "The same from a temperature of 3, which reaches pixels farther from the border.",
    "expected-miou": "The expected errors, weighted by what each costs the mIoU; temperature from 1 to 0.1.",
    "expected-miou-soft": "The same from a temperature of 3, which reaches pixels farther from the border.",
}
#: The losses that also accept two rows in place of class weights: the gains from leaving and from entering a class.
SCORES = ("expected-miou", "expected-miou-soft")
#: The losses that weight classes by the weights of a dataset.
BALANCED = ("mask-ce-bal", *SCORES)
#: Losses whose step size in APGD follows their unmasked form instead of the plain cross-entropy (appendix B.1).
TRACKED: dict[str, Loss] = {"mask-spherical": spherical}


def pixel_loss(
    name: str, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, progress: float = 0.0
) -> Tensor:
    """Compute the loss of each pixel, 0 where the label is void.

    Args:
        name: A key of `LOSSES`.
        logits: (B, K, H, W) float.
        labels: (B, H, W) int64 in -1 (void) .. K - 1.
        class_weights: (K,), needed by the balanced losses only.
        progress: t / T in [0, 1], for losses that change during the run.

    Returns:
        (B, H, W), the value to maximise.

    Raises:
        InputError: For an unknown name or shapes that do not fit together.
    """
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; choose from: {', '.join(LOSSES)}")
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise InputError(
            f"expected logits (B, K, H, W) and labels (B, H, W) of the same B, H, W; "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    classes = logits.shape[1]
    fitting = ((classes,), (2, classes)) if name in SCORES else ((classes,),)
    if class_weights is not None and class_weights.shape not in fitting:
        raise InputError(f"class_weights must be (K,) = ({classes},), one per class, got {tuple(class_weights.shape)}")
    loss = LOSSES[name](logits, labels, class_weights, progress)
    return loss.masked_fill(labels == VOID, 0)


def tracked_loss(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss that decides the step size of APGD under an attack loss (appendix B.1).

    Args:
        name: The attack loss, a key of `LOSSES`.
        logits: (B, K, H, W) float.
        labels: (B, H, W) int64 in -1 (void) .. K - 1.

    Returns:
        (B, H, W), 0 where the label is void.
    """
    loss = TRACKED.get(name, cross_entropy)(logits, labels, None, 0.0)
    return loss.masked_fill(labels == VOID, 0)


def pull(name: str, probabilities: Tensor, progress: float = 0.5) -> Tensor:
    """Compute how strongly a loss pulls at a pixel of two classes, by the probability of the right one.

    Losses that do not follow from the probability alone are computed for a rival whose logit is 2.

    Args:
        name: A key of `LOSSES`.
        probabilities: (n,) float, p_y of n pixels, within (0, 1).
        progress: t / T in [0, 1], for losses that change during the run.

    Returns:
        (n,), the derivative of each pixel's loss by the logit of its class, negated: how much the attack gains by
        lowering it.
    """
    rival = torch.full_like(probabilities, 2.0)
    logits = torch.stack([rival + probabilities.logit(), rival])[None, :, None].requires_grad_()
    labels = torch.zeros(1, 1, len(probabilities), dtype=torch.int64)
    loss = pixel_loss(name, logits, labels, torch.full((2,), 0.5, dtype=probabilities.dtype), progress)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return -gradient[0, 0, 0]
