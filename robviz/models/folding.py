"""Replace parts of a frozen network by others that compute the same, up to rounding, at a lower cost.

Batch norms are folded into the convolutions before them. On a CPU, paddings are folded into the kernels after them, and
convolutions of resized maps are computed before the resizing. In bfloat16, weights are converted once, and the layers
that a CPU computes faster in float32 stay in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robviz.models.layers import ConvNormAct, resize

#: How far folding may change the logits, relative to the largest; beyond this, the model cannot be folded.
TOLERANCE = 1e-3
#: A map is convolved before it is resized if resizing multiplies its pixels by this or more; else that saves nothing.
WORTH_IT = 2


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


def fold_norms(model: nn.Module, images: Tensor) -> None:
    """Fold the batch norms of a model into the convolutions before them, as a pass over these images shows them."""
    for conv_name, norm_name in norms_after(model, images).items():
        norm, conv = model.get_submodule(norm_name), model.get_submodule(conv_name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(conv, nn.Conv2d)
        if norm.running_mean is not None:
            model.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
            model.set_submodule(norm_name, after_norm(norm))


class PadsInside(nn.Conv2d):
    """Compute a convolution with TensorFlow's "same" padding, without a padded copy of its input.

    Such a padding is as wide at the end as at the start, or one wider. In that case, a row of zeros at the start of the
    kernel and the wider padding on both sides give the same.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride  # as a tuple, pairs stay pairs
        super().__init__(*sizes, groups=conv.groups, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns, for a kernel without dilation."""
        total = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[2:], self.stride, self.kernel_size)
        ]
        weight = F.pad(self.weight, (total[1] % 2, 0, total[0] % 2, 0))
        padding = [-(-width // 2) for width in total]
        return F.conv2d(x, weight, self.bias, self.stride, padding, 1, self.groups)


def pads_itself(module: nn.Module) -> bool:
    """Return True for timm's convolution with TensorFlow's "same" padding; does not import timm to find out."""
    return isinstance(module, nn.Conv2d) and type(module).__name__ == "Conv2dSame" and module.dilation == (1, 1)


@lru_cache(maxsize=256)
def neighbours(small: int, large: int, kernel: int, align_corners: bool) -> Tensor:
    """Return what a kernel sees at each position of an axis that was resized from small to large.

    The result (large, kernel, small) holds the weights of the positions before the resizing: 0 beyond the ends.
    """
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        unit = torch.eye(small, dtype=torch.float32)
        resized = resize(unit[None, :, None], torch.Size((1, large)), align_corners)
        margin = kernel // 2
        padded = F.pad(resized[0, :, 0].T, (0, 0, margin, margin))
        return torch.stack([padded[tap : tap + large] for tap in range(kernel)], 1)


def conv_of_resized(x: Tensor, taps: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    """Return the convolution of a resized map, computed before the resizing, where there are fewer pixels.

    Both are linear, and the kernel mixes channels at each of its taps, which commutes with the resizing. So each tap
    mixes the channels of the small map; then its rows, and then its columns, are resized, shifted and summed.

    Args:
        x: Maps (B, C, h, w).
        taps: The kernel (k, k, O, C), as (k, C, k O).
        size: Height H and width W after the resizing.
        align_corners: Whether resizing leaves the corner pixels where they are.

    Returns:
        Maps (B, O, H, W).
    """
    (batch, channels, h, w), (height, width) = x.shape, size
    kernel, outputs = taps.shape[0], taps.shape[2] // taps.shape[0]
    rows = neighbours(h, height, kernel, align_corners).to(x.dtype).reshape(height, kernel * h)
    columns = neighbours(w, width, kernel, align_corners).to(x.dtype).transpose(1, 2).reshape(width, w * kernel)
    pixels = x.permute(0, 2, 3, 1).reshape(1, batch * h * w, channels)
    mixed = torch.bmm(pixels.expand(kernel, -1, -1), taps).view(kernel, batch, h, -1)
    mixed = mixed.transpose(0, 1).reshape(batch, kernel * h, -1)
    lines = torch.bmm(rows.expand(batch, -1, -1), mixed).view(batch * height, w * kernel, outputs)
    result = torch.bmm(columns.expand(batch * height, -1, -1), lines)
    return result.view(batch, height, width, outputs).permute(0, 3, 1, 2)


class ResizesLast(ConvNormAct):
    """Compute convolution, batch norm and activation; over several maps, the convolution before they are resized."""

    def __init__(self, module: ConvNormAct) -> None:
        nn.Sequential.__init__(self, *module)
        self._taps: dict[tuple[int, torch.dtype], Tensor] = {}

    def taps(self, weight: Tensor, start: int, channels: int) -> Tensor:
        """Return the kernel of some of the input channels in the form that `conv_of_resized` takes."""
        key = start, weight.dtype
        if key not in self._taps:
            kernel = weight[:, start : start + channels].permute(2, 1, 3, 0)
            self._taps[key] = kernel.reshape(len(kernel), channels, -1)
        return self._taps[key]

    def over(self, maps: Sequence[Tensor], align_corners: bool = False) -> Tensor:
        """Apply to maps of several sizes, resized to the size of the first and stacked by channel."""
        conv, *rest = self
        assert isinstance(conv, nn.Conv2d)
        size, start = maps[0].shape[2:], 0
        early, kernels, late = list[Tensor](), list[Tensor](), list[Tensor]()
        for x in maps:
            channels = x.shape[1]
            if x.shape[2:].numel() * WORTH_IT <= size.numel():
                late.append(conv_of_resized(x, self.taps(conv.weight, start, channels), size, align_corners))
            else:
                early.append(x if x.shape[2:] == size else resize(x, size, align_corners))
                kernels.append(conv.weight[:, start : start + channels])
            start += channels
        result = F.conv2d(torch.cat(early, 1), torch.cat(kernels, 1), conv.bias, padding=conv.padding)
        for x in late:
            result = result + x
        for layer in rest:
            result = layer(result)
        return result


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the model with whatever can be folded, or unchanged if that would change its logits on these images."""
    changed = copy.deepcopy(model)
    fold_norms(changed, images)
    if images.device.type == "cpu":
        for name, module in list(changed.named_modules()):
            if pads_itself(module):
                changed.set_submodule(name, PadsInside(module))
            elif isinstance(module, ConvNormAct):
                changed.set_submodule(name, ResizesLast(module))
    with torch.no_grad():
        before, after = model(images), changed.eval()(images)
    largest = max(1.0, before.abs().max().item())
    return changed if (after - before).abs().max().item() <= TOLERANCE * largest else model


class InFloat32(nn.Module):
    """Compute a layer in float32 within a network in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output in the type of its input."""
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.layer(x.float())
        return result.to(x.dtype)


def is_slow_in_bfloat16(layer: nn.Module) -> bool:
    """Return True for strided depthwise convolutions: on a CPU, their gradient in bfloat16 takes far longer."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels and max(layer.stride) > 1


def for_bfloat16(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a model ready for passes under autocast on a CPU, or unchanged if it would refuse these images then."""
    changed = copy.deepcopy(model)
    for name, module in list(changed.named_modules()):
        if is_slow_in_bfloat16(module):
            changed.set_submodule(name, InFloat32(module))
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)  # autocast would convert the weights in each pass
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            changed(images)
    except RuntimeError:  # it uses a weight where autocast does not convert the other operand
        return model
    return changed
