"""What replaces parts of a network computes the same: kernels with their padding, convolutions of resized maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robviz.models import build, prepared
from robviz.models.folding import (
    InFloat32,
    PadsInside,
    ResizesLast,
    conv_of_resized,
    folded,
    for_bfloat16,
    pads_itself,
)
from robviz.models.layers import ConvNormAct, resize

SEED = torch.Generator().manual_seed(0)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=SEED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("small", "large"), [((3, 4), (7, 9)), ((1, 1), (5, 5)), ((6, 6), (4, 4)), ((5, 8), (5, 8))])
def test_a_convolution_before_resizing_is_the_one_after_it(small, large, kernel, align_corners, dtype):
    x, weight = noise(2, 3, *small).to(dtype), noise(5, 3, kernel, kernel).to(dtype)
    taps = weight.permute(2, 1, 3, 0).reshape(kernel, 3, -1)
    late = conv_of_resized(x, taps, torch.Size(large), align_corners)
    early = F.conv2d(resize(x, torch.Size(large), align_corners), weight, padding=kernel // 2)
    torch.testing.assert_close(late, early, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_layer_over_maps_of_several_sizes_gives_the_same_and_the_same_gradients(batch, align_corners):
    layer = ConvNormAct(12, 4, 3).eval().requires_grad_(False)
    maps = [noise(batch, channels, size, size + 1) for channels, size in ((5, 12), (3, 11), (2, 6), (2, 1))]
    for x in maps:
        x.requires_grad_()
    before, after = (one.over(maps, align_corners) for one in (layer, ResizesLast(layer)))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    expected, found = (torch.autograd.grad(result.square().sum(), maps) for result in (before, after))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_over_the_levels_of_a_pyramid_it_multiplies_less_than_half():
    layer, maps = ConvNormAct(4 * 64, 64, 3).eval(), [noise(1, 64, size, size) for size in (64, 32, 16, 8)]
    counts = []
    for one in (layer, ResizesLast(layer)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            one.over(maps)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0] / 2


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 13)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_kernel_with_its_padding_inside_is_timm_s_convolution(size, kernel, stride, groups):
    from timm.layers import Conv2dSame

    conv = Conv2dSame(4, 8, kernel, stride=stride, groups=groups).requires_grad_(False)
    assert pads_itself(conv)
    x = noise(2, 4, *size)
    torch.testing.assert_close(PadsInside(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


def test_a_dilated_kernel_keeps_its_padding():
    from timm.layers import Conv2dSame

    assert not pads_itself(Conv2dSame(4, 4, 3, dilation=2))
    assert not pads_itself(nn.Conv2d(4, 4, 3))


class Small(nn.Module):
    """A strided depthwise convolution and a layer over two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3)
        self.join = ConvNormAct(6, 4, 3)

    def forward(self, images):
        return self.join.over([images, self.depthwise(images)])


def test_in_bfloat16_strided_depthwise_convolutions_stay_in_float32():
    images = noise(1, 3, 16, 16)
    model = Small().eval().requires_grad_(False)
    ready = for_bfloat16(folded(model, images), images)
    assert isinstance(ready.depthwise, InFloat32)
    assert ready.depthwise.layer.weight.dtype == torch.float32
    assert ready.join[0].weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ready(images).float(), model(images).float(), atol=0.1, rtol=0.05)
    assert model.join[0].weight.dtype == torch.float32


class ReadsAWeight(nn.Module):
    """Use a weight where autocast does not convert the other operand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.conv(torch.lerp(images, -images, self.conv.weight[:1]))


def test_a_model_that_mixes_a_weight_with_other_types_keeps_its_weights():
    model = ReadsAWeight().eval()
    assert for_bfloat16(model, noise(1, 3, 4, 4)) is model
    assert model.conv.weight.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upernet-efficientnet-lite0", "upernet-convnext-small-cvst", "pspnet-50"])
def test_the_architectures_predict_the_same_at_any_size(name):
    model = build(name, 4).eval().requires_grad_(False)
    ready = prepared(model)
    for size in ((64, 96), (65, 131)):
        images = torch.rand(2, 3, *size, generator=SEED)
        expected = model(images)
        torch.testing.assert_close(ready(images), expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)
    assert any(isinstance(module, ResizesLast) for module in ready.modules())
