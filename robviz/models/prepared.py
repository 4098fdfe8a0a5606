"""Prepare a frozen network for the hundreds of passes of an attack: the same function at a lower cost.

Batch norms are folded into the convolutions before them, weights lie channels last, and the forward pass may run in
bfloat16. Reported predictions never come from here; they come from the original model, in float32.
"""

from __future__ import annotations

import copy
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robviz.models.precision import InBfloat16

#: How far folding may change the logits, relative to the largest; beyond this, the model cannot be folded.
TOLERANCE = 1e-3
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Prepared(nn.Module):
    """Copy a network, and fold its batch norms at the first pass, which shows which convolution each of them follows.

    precision: `fp32`, or `bf16` for passes under autocast; the logits are float32 in either case.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.precision, self.is_folded = precision, False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) in float32; the first call folds the batch norms."""
        if not self.is_folded:
            self.model, self.is_folded = folded(self.model, images.detach()[:1]), True
        images = images.contiguous(memory_format=torch.channels_last)
        if self.precision == "fp32":
            logits: Tensor = self.model(images)
            return logits
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = self.model(images)
        return logits.float()


def norms_after(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Return the convolutions whose output goes straight into a batch norm, and that norm, each used once."""
    outputs: dict[int, str] = {}
    uses: dict[str, int] = {}
    found: dict[str, str] = {}
    alive: list[Tensor] = []  # so that no other tensor gets the id of an output

    def see(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        uses[name] = uses.get(name, 0) + 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = name
            alive.append(output)
        elif id(inputs[0]) in outputs:
            found[outputs[id(inputs[0])]] = name

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, module, inputs, output))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return {conv: norm for conv, norm in found.items() if uses[conv] == uses[norm] == 1}


def after_norm(norm: nn.Module) -> nn.Module:
    """Return what a batch norm does in addition to normalising: timm's contain an activation."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the model with its batch norms folded, or unchanged if that would change its logits on these images."""
    changed = copy.deepcopy(model)
    for conv_name, norm_name in norms_after(changed, images).items():
        norm, conv = changed.get_submodule(norm_name), changed.get_submodule(conv_name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(conv, nn.Conv2d)
        if norm.running_mean is None:
            continue
        fused = fuse_conv_bn_eval(conv, norm)
        changed.set_submodule(conv_name, fused.requires_grad_(False))
        changed.set_submodule(norm_name, after_norm(norm))
    with torch.no_grad():
        before, after = model(images), changed.eval()(images)
    largest = max(1.0, before.abs().max().item())
    return changed if (after - before).abs().max().item() <= TOLERANCE * largest else model


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
