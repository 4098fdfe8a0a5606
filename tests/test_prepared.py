"""A prepared model predicts the same as its original, and a model that cannot be prepared is left unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robviz import sea
from robviz.checks import UNBROKEN, look
from robviz.models.precision import InBfloat16
from robviz.models.prepared import Prepared, prepared, why_not
from robviz.results.plan import Run, SeaSettings
from robviz.sea import evaluate
from tests.small import Bends, Noise

IMAGES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def test_a_prepared_model_answers_alike_and_its_batch_norms_are_folded():
    model = Bends().eval()
    ready = prepared(model)
    torch.testing.assert_close(ready(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_its_gradients_are_those_of_the_model():
    model, points = Bends().eval(), [IMAGES.clone().requires_grad_() for _ in range(2)]
    first, second = (
        torch.autograd.grad(one(x).square().sum(), x)[0] for one, x in zip((model, prepared(model)), points)
    )
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


def test_it_is_made_once_and_again_after_the_weights_changed():
    model = Bends().eval()
    ready = prepared(model)
    assert prepared(model) is ready
    with torch.no_grad():
        model.layers[4].bias.add_(1)
    assert prepared(model) is not ready
    torch.testing.assert_close(prepared(model)(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


def test_in_bfloat16_the_logits_are_float32():
    assert prepared(Bends().eval(), "bf16")(IMAGES).dtype == torch.float32


class Twice(nn.Module):
    """A convolution whose output is used beside its batch norm, so that folding would change the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(5)

    def forward(self, images):
        x = self.conv(images)
        return x + self.norm(x)


def test_a_model_that_folding_would_change_is_not_folded():
    model = Twice().eval()
    torch.testing.assert_close(prepared(model)(IMAGES), model(IMAGES))


def hooked() -> nn.Module:
    model = Bends().eval()
    model.layers[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (hooked, "it has hooks"),
        (lambda: torch.jit.trace(Bends().eval(), IMAGES), "it is scripted"),
        (lambda: Bends().train(), "it is in train mode"),
        (lambda: nn.Identity().eval(), "it has no convolution"),
    ],
    ids=["hooks", "scripted", "train mode", "no convolution"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_models_that_cannot_be_prepared_come_back_as_they_are(make, says):
    model = make()
    assert why_not(model) == says
    assert prepared(model) is model
    assert isinstance(prepared(model, "bf16"), InBfloat16)


def test_the_report_of_a_prepared_model_holds_the_model_s_own_predictions():
    settings, model = SeaSettings("tiny", (Run("js", "pgd", 2),)), Bends().eval()
    assert isinstance(prepared(model), Prepared)
    ready, plain = (evaluate(model, Noise(), 0.02, settings, limit=2, prepare=prepare) for prepare in (True, False))
    assert ready.rows["clean"] == plain.rows["clean"]
    assert ready.rows["worst case"]["accuracy_mean"] == pytest.approx(
        plain.rows["worst case"]["accuracy_mean"], abs=0.03
    )


class Counted(nn.Module):
    """Count the passes with a gradient through a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.steps = model, 0

    def forward(self, images):
        self.steps += torch.is_grad_enabled()
        return self.model(images)


def test_the_look_before_an_evaluation_attacks_the_prepared_model_and_counts_the_model_s_own_predictions():
    sample = Noise()[0]
    model, attacked = Counted(Bends().eval()), Counted(Bends(4).eval())
    attacked.model.layers[4].bias.data += torch.tensor([100.0, 0, 0, 0])  # it always answers with the first class
    found = look(model, sample.image[None], sample.labels[None], 0.02, 4, 20, attacked)
    assert model.steps == 1  # is there a gradient?
    assert attacked.steps > 6
    assert found["huge"] != pytest.approx((sample.labels[sample.labels >= 0] == 0).float().mean().item())
    assert found == look(model, sample.image[None], sample.labels[None], 0.02, 4, 20, attacked)


@pytest.mark.parametrize(("prepare", "kind"), [(True, Prepared), (False, Bends)])
def test_an_evaluation_looks_at_what_it_attacks(prepare, kind, monkeypatch):
    seen = []
    monkeypatch.setattr(sea, "look", lambda *arguments: seen.append(arguments[-1]) or look(*arguments))
    evaluate(Bends().eval(), Noise(), 0.02, SeaSettings("tiny", (Run("js", "pgd", 2),)), limit=2, prepare=prepare)
    assert [type(one) for one in seen] == [kind]


def test_what_the_look_finds_is_said_alike_with_and_without_a_prepared_model():
    sample, model = Noise()[0], Bends().eval()
    plain, ready = (
        look(model, sample.image[None], sample.labels[None], 0.02, 4, 30, one) for one in (None, prepared(model))
    )
    assert {key: ready[key] for key in ("change", "noise")} == {key: plain[key] for key in ("change", "noise")}
    assert (ready["huge"] > UNBROKEN) == (plain["huge"] > UNBROKEN)
