"""Each check finds the defect that it looks for, and a sound model passes them all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robviz.checks import CHECKS, check, require_within
from tests.small import Bends


class Wrapped(nn.Module):
    """A sound model with something done to its logits or its input."""

    def __init__(self, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.model, self.before, self.after = Bends().eval(), before, after

    def forward(self, images):
        return self.after(self.model(self.before(images)))


@pytest.fixture
def case():
    images = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    return images, Bends().eval()(images).argmax(1)


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


class Rounded(torch.autograd.Function):
    """Quantised input, its gradient passed on as random numbers: a gradient that leads nowhere."""

    @staticmethod
    def forward(context, x):
        return x

    @staticmethod
    def backward(context, gradient):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(gradient.shape, generator=generator)


DEFECTS = {
    "train mode": (Wrapped().train(), "the model is in train mode"),
    "random outputs": (Wrapped(before=noisy).eval(), "differ by"),
    "batch dependence": (
        Wrapped(before=lambda x: x - x.mean(0, keepdim=True) + 0.5).eval(),
        "when another one lies beside",
    ),
    "probabilities": (Wrapped(after=lambda x: x.softmax(1)).eval(), "return logits"),
    "vanishing gradient": (Wrapped(before=lambda x: (x * 8).round() / 8).eval(), "100 % of the input gradient is"),
    "huge radius": (Wrapped(after=lambda x: x.detach() + 0 * x).eval(), "still correct at eps 128/255"),
    "noise": (Wrapped(before=lambda x: (x * 8).round() / 8).eval(), "noise of the same size leaves"),
    "squares": (Wrapped(before=Rounded.apply).eval(), "random squares leave"),
}


def test_every_check_has_its_defect():
    assert DEFECTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_a_defect_is_found_and_said(case, name):
    model, says = DEFECTS[name]
    assert says in check(model, *case, eps=0.1).get(name, "nothing")


def test_a_sound_model_raises_no_suspicion(case):
    assert check(Bends().eval(), *case, eps=0.1) == {}


def test_a_suspicion_is_a_warning_too(case):
    with pytest.warns(UserWarning, match="train mode: the model is in train mode"):
        check(Bends().train(), *case, eps=0.1)


def test_the_model_comes_back_as_it_was(case):
    model = Bends().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="train mode"):
        check(model, *case, eps=0.1)
    assert all(module.training for module in model.modules())
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [0.2, float("nan")])
def test_a_perturbation_beyond_the_budget_is_an_error(wrong):
    images = torch.full((1, 3, 2, 2), 0.5)
    require_within(images + 0.1, images, 0.1)
    attacked = images.clone()
    attacked[0, 0, 0, 0] += wrong
    with pytest.raises(ValueError, match="exceeds eps"):
        require_within(attacked, images, 0.1)


def test_a_pixel_outside_the_colour_range_is_an_error():
    images = torch.ones(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.05"):
        require_within(images + 0.05, images, 0.1)
