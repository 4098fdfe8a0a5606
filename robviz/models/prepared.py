"""Prepare a frozen network for the hundreds of passes of an attack: the same function at a lower cost.

What can be folded is folded (`robviz.models.folding`), weights lie channels last, and the forward pass may run in
bfloat16. Reported predictions never come from here; they come from the original model, in float32.
"""

from __future__ import annotations

import copy
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robviz.models.folding import folded, for_bfloat16
from robviz.models.precision import InBfloat16

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Prepared(nn.Module):
    """Copy a network, and fold it at the first pass, which shows which convolution each of its batch norms follows.

    precision: `fp32`, or `bf16` for passes under autocast; the logits are float32 in either case.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.precision, self.is_folded = precision, False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) in float32; the first call folds the network."""
        # Read before and written after the mark: threads may come here at once, and none folds twice.
        model = self.model
        if not self.is_folded:
            example = images.detach()[:1]
            model = folded(model, example)
            if self.precision == "bf16" and images.device.type == "cpu":
                model = for_bfloat16(model, example)
            self.is_folded = True
            self.model = model
        images = images.contiguous(memory_format=torch.channels_last)
        if self.precision == "fp32":
            logits: Tensor = model(images)
            return logits
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = model(images)
        return logits.float()


def why_not(model: nn.Module) -> str:
    """Explain why a model cannot be prepared; empty if it can."""
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        return "it is scripted"
    if any(hasattr(module, "_orig_mod") for module in modules):
        return "it is compiled"
    if any(getattr(module, name, None) for module in modules for name in HOOKS):
        return "it has hooks"
    if not any(isinstance(module, nn.Conv2d) for module in modules):
        return "it has no convolution"
    if any(module.training for module in modules):
        return "it is in train mode"
    return ""


class Kept(NamedTuple):
    """Store a prepared model and the state of the original from which it was made."""

    state: tuple[tuple[int, int], ...]
    model: Prepared


_kept: WeakKeyDictionary[nn.Module, dict[str, Kept]] = WeakKeyDictionary()


def state_of(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return where the tensors of a model lie and how often they were written to, which differs after every change."""
    return tuple((tensor.data_ptr(), tensor._version) for tensor in (*model.parameters(), *model.buffers()))


def prepared(model: nn.Module, precision: str = "fp32") -> nn.Module:
    """Return a network with the same predictions that costs less, for gradients; the model is not modified.

    Scripted and compiled models, models with hooks or in training mode, and those that cannot be copied are left alone
    (`why_not` says why), except for the precision. The same network is returned while the model's weights stay the
    same.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        precision: `fp32`, or `bf16` for passes under autocast.

    Returns:
        A module from images to float32 logits, in eval mode and frozen.
    """
    if not why_not(model):
        try:
            kept, state = _kept.setdefault(model, {}), state_of(model)
            if precision not in kept or kept[precision].state != state:
                kept[precision] = Kept(state, Prepared(model, precision))
            return kept[precision].model
        except Exception:  # a user's model may raise any exception when it is copied
            _kept.pop(model, None)
    return InBfloat16(model) if precision == "bf16" else model
