"""An evaluation is about what it says, and says when its figures are not to be believed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from robviz.attacks import TROUBLES, AttackSpec, apgd, last_of, spec_steps
from robviz.checks import SHARE, look
from robviz.models import adapt
from robviz.models.identity import identity
from robviz.results.plan import Run, SeaSettings
from robviz.results.report import Report
from robviz.sea import evaluate
from robviz.types import Dataset, Sample
from tests.conftest import Bends

ONE = SeaSettings("one", (Run("mask-ce", "apgd", 6),))
EPS = 0.03


class Streets(Dataset):
    """Random pictures, labelled by a small network, with what may change as attributes."""

    name, split, classes, palette = "streets", "val", ("a", "b", "c", "d"), ((0, 0, 0),) * 4

    def __init__(self, count=2, flipped=(), names=None, weights=None):
        self.count, self.flipped, self.weights = count, flipped, weights
        self.names = names or [f"street-{index}" for index in range(count)]

    @property
    def class_weights(self):
        return None if self.weights is None else torch.tensor(self.weights)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
        labels = Bends().eval()(image[None])[0].argmax(0)
        return Sample(self.names[index], image, labels.flip(0) if index in self.flipped else labels)


def model():
    return Bends().eval()


def refused(folder, network, dataset, settings=ONE, **options):
    with pytest.raises(ValueError, match="holds the records of another run") as refusal:
        evaluate(network, dataset, EPS, settings, out=folder, **options)
    return str(refusal.value)


# ------------------------------------------------------------------------------------- what a report is about


def test_another_mask_is_refused_by_the_name_of_its_picture(tmp_path):
    evaluate(model(), Streets(), EPS, ONE, out=tmp_path)
    said = refused(tmp_path, model(), Streets(flipped=(1,)))
    assert "dataset.sha256: " in said
    assert "the picture or the labels of street-1 changed" in said
    assert said.endswith("give another folder, or resume=False to start over")


def test_other_names_orders_classes_and_weights_are_refused(tmp_path):
    settings = SeaSettings("two", (Run("mask-ce-bal", "apgd", 2),))
    weights = [1.0, 2.0, 3.0, 4.0]
    evaluate(model(), Streets(weights=weights), EPS, settings, out=tmp_path)
    assert "dataset.sha256" in refused(tmp_path, model(), Streets(names=["x", "y"], weights=weights), settings)
    assert "dataset.class_weights: [1.0, 2.0, 3.0, 4.0] there, [1.0, 2.0, 3.0, 5.0] asked for" in refused(
        tmp_path, model(), Streets(weights=[1.0, 2.0, 3.0, 5.0]), settings
    )
    other = Streets(weights=weights)
    other.classes = ("a", "b", "c", "e")
    assert "dataset.classes: ['a', 'b', 'c', 'd'] there, ['a', 'b', 'c', 'e'] asked for" in refused(
        tmp_path, model(), other, settings
    )


def test_class_weights_are_asked_for_only_where_a_loss_takes_them(tmp_path):
    class Counting(Streets):
        @property
        def class_weights(self):
            raise AssertionError("nobody needs them")

    assert evaluate(model(), Counting(), EPS, ONE).plan["dataset"]["class_weights"] is None


def test_a_dataset_without_weights_is_refused_at_once_with_what_to_write(tmp_path):
    with pytest.raises(
        ValueError, match=r"mask-ce-bal needs class weights, and streets has none; write `class_weights"
    ):
        evaluate(model(), Streets(), EPS, SeaSettings("two", (Run("mask-ce-bal", "apgd", 2),)), out=tmp_path)
    assert not (tmp_path / "records").exists()


def test_what_does_not_decide_a_figure_is_recorded_but_does_not_stand_in_the_way(tmp_path):
    report = evaluate(model(), Streets(), EPS, ONE, out=tmp_path)
    path = tmp_path / "plan.json"
    plan = json.loads(path.read_text(encoding="utf-8"))
    for package in ("robviz", "python", "numpy", "pillow"):
        plan["versions"][package] = "0.0.1"
    path.write_text(json.dumps(plan), encoding="utf-8")
    again = evaluate(model(), Streets(), EPS, ONE, out=tmp_path)
    assert again.rows == report.rows
    assert again.plan["versions"]["robviz"] == "0.0.1"
    plan["versions"]["torch"] = "0.0.1"
    path.write_text(json.dumps(plan), encoding="utf-8")
    assert "versions.torch: '0.0.1' there" in refused(tmp_path, model(), Streets())


def test_threads_are_compared_on_a_cpu_alone(tmp_path):
    from robviz.results.records import Records

    Records(tmp_path / "gpu", {"device": "cuda", "threads": 4})
    Records(tmp_path / "gpu", {"device": "cuda", "threads": 8})
    Records(tmp_path / "cpu", {"device": "cpu", "threads": 4})
    with pytest.raises(ValueError, match="threads: 4 there, 8 asked for"):
        Records(tmp_path / "cpu", {"device": "cpu", "threads": 8})


def test_a_report_of_before_without_the_new_keys_still_opens(tmp_path):
    report = evaluate(model(), Streets(), EPS, ONE, out=tmp_path)
    values = json.loads(report.to_json())
    del values["doubts"], values["plan"]["dataset"]["sha256"], values["plan"]["model"]["code"]
    (tmp_path / "old.json").write_text(json.dumps(values), encoding="utf-8")
    old = Report.load(tmp_path / "old.json")
    assert old.doubts == []
    assert old.to_markdown() == report.to_markdown()


SCALE = 2.0


def scaled(x):
    return SCALE * x


class Own(nn.Module):
    """A model of one's own that uses a function, which uses a number."""

    def __init__(self, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=stride)

    def forward(self, x):
        return self.conv(scaled(x))


def test_settings_code_and_values_that_a_state_dict_does_not_hold_tell_models_apart(monkeypatch):
    first = identity(Own())
    assert identity(Own()) == first
    assert {"tests.test_believable.Own", "tests.test_believable.scaled", "tests.test_believable.SCALE"} <= first[
        "code"
    ].keys()
    assert identity(Own(stride=2))["settings"] != first["settings"]
    monkeypatch.setattr("tests.test_believable.SCALE", 3.0)
    assert identity(Own())["code"] != first["code"]


def test_what_adapt_was_told_is_in_the_plan_and_compared(tmp_path):
    def adapted(**options):
        known = {"mean": (0, 0, 0), "std": (1, 1, 1), "dataset": Streets()} | options
        return adapt(Bends().eval(), list("abcd"), **known)

    report = evaluate(adapted(), Streets(), EPS, ONE, out=tmp_path)
    assert report.plan["model"]["wrapping"]["class_of_channel"] == [0, 1, 2, 3]
    swapped = {"a": "b", "b": "a", "c": "c", "d": "d"}
    assert "model.wrapping.class_of_channel" in refused(tmp_path, adapted(class_map=swapped), Streets())
    assert "model.wrapping.multiple_of: 1 there, 32 asked for" in refused(tmp_path, adapted(multiple_of=32), Streets())
    assert "model.wrapping.output: None there" in refused(tmp_path, adapted(output=lambda z: 2 * z), Streets())


# ------------------------------------------------------------------------------------- robust, or unattackable?


class Masked(nn.Module):
    """A network whose gradient is something else than it should be."""

    def __init__(self, hide):
        super().__init__()
        self.inner, self.hide = model(), hide

    def forward(self, x):
        return self.inner(x) + self.hide(x)


def nan_root(x):
    return (0 * x).pow(2).sum(1, keepdim=True).sqrt()  # 0, with a gradient of NaN


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, x):
        return self.inner((x * 8).round() / 8)


DOUBTFUL = {
    "nan": (lambda: Masked(nan_root), "the gradient held NaN or infinity on 2 of 2 images"),
    "blind": (Blind, "the gradient was 0 around most pixels still to break on 2 of 2 images"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_an_attack_that_stands_still_is_warned_of_and_marked_everywhere(tmp_path, name):
    build, says = DOUBTFUL[name]
    with pytest.warns(UserWarning, match=f"do not believe this figure: mask-ce.apgd.6: {says}"):
        report = evaluate(build(), Streets(), EPS, ONE, out=tmp_path)
    assert says in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["doubts"][0]
    assert "**Do not believe this figure: mask-ce.apgd.6: " in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.doubts == Report.load(tmp_path / "report.json").doubts


def test_a_sound_model_has_no_doubts_and_its_records_are_as_before(tmp_path):
    report = evaluate(model(), Streets(), EPS, ONE, out=tmp_path)
    assert report.doubts == []
    assert "believe" not in report.to_markdown()
    record = next((tmp_path / "records").glob("*.mask-ce.*.json")).read_text(encoding="utf-8")
    assert "trouble" not in record


def test_gradients_between_sparse_samples_of_a_picture_are_no_trouble():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            return nn.functional.interpolate(self.inner(x[:, :, ::4, ::4]), x.shape[2:])

    network, image = Sparse().eval(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = apgd(network, image, network(image).argmax(1), EPS, 5, "ce")
    assert result.trouble.tolist() == [[0] * len(TROUBLES)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_pixels_are_float32_whatever_the_models_precision(dtype):
    class Low(nn.Module):
        def __init__(self, back):
            super().__init__()
            self.inner, self.back = model(), back

        def forward(self, x):
            logits = (20 * self.inner(x)).to(dtype)
            return logits.float() if self.back else logits

    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    labels = (model()(image).argmax(1) + 1) % 4  # a loss that is large at every pixel
    low, high = (apgd(Low(back), image, labels, EPS, 3, "ce") for back in (False, True))
    assert low.history.loss.isfinite().all()
    torch.testing.assert_close(low.history.loss, high.history.loss)


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, x):
        return self.inner(x) + 0.5 * torch.randn(x.shape[0], 4, *x.shape[2:])


def test_a_model_that_answers_at_random_is_told_and_can_be_evaluated_in_expectation():
    with pytest.warns(UserWarning, match=r"the model is random: .* eot=20 attacks the mean of 20 passes"):
        once = evaluate(Random(), Streets(), EPS, ONE)
    torch.manual_seed(99)
    with pytest.warns(UserWarning, match="the model is random"):
        assert evaluate(Random(), Streets(), EPS, ONE).rows == once.rows  # its draws follow from seed and image
    report = evaluate(Random(), Streets(), EPS, ONE, eot=3)
    assert report.doubts == []
    assert report.plan["eot"] == 3
    assert report.gradients == 3 * once.gradients


@pytest.mark.slow
def test_a_model_that_never_answers_anything_else_is_doubted():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            return 1e-3 * self.inner(x) + torch.tensor([9.0, 0, 0, 0]).view(1, 4, 1, 1)

    class Background(Streets):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, labels=torch.zeros_like(sample.labels))

    many = SeaSettings("many", (Run("mask-ce", "apgd", 300),))
    with pytest.warns(UserWarning, match=r"100.0 % of the pixels of the first picture are still correct .* 128/255"):
        evaluate(Constant(), Background(), EPS, many)


@pytest.mark.parametrize("steps", [60, 300, 900])
def test_the_look_before_an_evaluation_costs_at_most_its_share_of_passes(steps):
    calls = []
    network = model()
    network.register_forward_hook(lambda *_: calls.append(1))
    sample = Streets()[0]
    allowed = SHARE * steps
    look(network, sample.image[None], sample.labels[None], EPS, 4, allowed)
    assert len(calls) <= max(2, allowed)


def test_a_resumed_evaluation_looks_no_second_time_and_says_the_same(tmp_path):
    with pytest.warns(UserWarning, match="do not believe"):
        first = evaluate(Blind(), Streets(), EPS, ONE, out=tmp_path)
    network, calls = Blind(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    with pytest.warns(UserWarning, match="do not believe"):
        assert evaluate(network, Streets(), EPS, ONE, out=tmp_path) == first
    assert calls == []


# ------------------------------------------------------------------------------------- what a model answers


class Says(nn.Module):
    """A network that answers in another way."""

    def __init__(self, say, channels=4):
        super().__init__()
        self.conv, self.say = nn.Conv2d(3, channels, 3, padding=1), say

    def forward(self, x):
        return self.say(self.conv(x))


ANSWERS = {
    "dict": (Says(lambda z: {"out": z}), r"got a dict of 'out'; robviz.models.adapt\(.*output='out'\) takes them out"),
    "tuple": (Says(lambda z: (z, z)), r"got a tuple; robviz.models.adapt\(.*output=0\) takes the first"),
    "mask": (Says(lambda z: z.argmax(1)), "got torch.int64 .* return the scores of the classes, before the argmax"),
    "quarter": (Says(lambda z: z[:, :, ::4, ::4]), r"\(1, 4, 4, 4\); robviz.models.adapt\(.* brings logits"),
    "probabilities": (Says(lambda z: z.softmax(1)), r"returned probabilities, .* output=torch.log\) undoes it"),
    "fewer": (Says(lambda z: z, 3), r"3 channels for 4 classes; .* dataset=..., class_map=..., void_index=...\)"),
    "more": (Says(lambda z: z, 150), "returned 150 channels for 4 classes"),
    "one": (Says(lambda z: z, 1), r'returned one channel, .* output="binary"\) makes two of one logit'),
    "no gradient": (Says(lambda z: z.detach()), "no gradient leads from the model's logits to the picture"),
    "half": (Says(lambda z: z).half(), r"images of torch.float32, as its weights are torch.float16; .* use model.to"),
    "fails": (Says(lambda z: z.missing), r"failed on a picture of 16 x 16: AttributeError: .* multiple_of=32\) pads"),
    "in place": (Says(lambda z: z), "it changes the picture in place; expected a copy, such as x = x - mean"),
    "nan": (Says(lambda z: z / 0), "returned NaN or infinite logits"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_model_answers_is_said_in_one_sentence_before_the_first_attack(tmp_path, name):
    network, says = ANSWERS[name]
    if name == "in place":
        network.forward = lambda x: network.conv(x.sub_(0.5))
    with pytest.raises(ValueError, match=says) as refusal:
        evaluate(network, Streets(), EPS, ONE, out=tmp_path)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "records").iterdir())


@pytest.mark.parametrize("name", ["dict", "tuple", "mask", "quarter", "one", "half"])
def test_an_attack_says_it_too(name):
    network, says = ANSWERS[name]
    sample = Streets()[0]
    with pytest.raises(ValueError, match=says):
        apgd(network, sample.image[None], sample.labels[None], EPS, 2, "ce")


def test_attacks_work_in_inference_mode_and_refuse_a_model_that_was_made_in_it():
    sample = Streets()[0]
    images, labels = sample.image[None], sample.labels[None]
    there = apgd(model(), images, labels, EPS, 4, "mask-ce").accuracy
    with torch.inference_mode():
        assert apgd(model_outside, images.clone(), labels.clone(), EPS, 4, "mask-ce").accuracy.equal(there)
        made = model()
    with pytest.raises(
        ValueError, match=r"made in torch.inference_mode\(\), where no gradient passes; .* torch.no_grad"
    ):
        apgd(made, images, labels, EPS, 4, "mask-ce")


model_outside = model()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": [[0.5]]}, "images must be a torch.Tensor, got list; use torch.as_tensor"),
        ({"class_weights": [1, 1, 1, 1]}, r"class_weights must be a torch.Tensor \(K,\), got list"),
        ({"class_weights": torch.ones(9)}, r"class_weights must be \(K,\) = \(4,\), one per class, got \(9,\)"),
        ({"class_weights": -torch.ones(4)}, "class_weights must be finite and at least 0, got"),
        ({"class_weights": torch.full((4,), float("nan"))}, "class_weights must be finite"),
        ({"eps": 4}, r"eps must lie in \[0, 1\] .*; did you mean 4/255\?"),
        ({"eps": float("nan")}, r"eps must lie in \[0, 1\]"),
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"loss": "ce", "target": 1.5}, "target must be a whole number, got 1.5"),
        ({"loss": "ce", "target": 9}, "labels must lie in"),
    ],
)
def test_arguments_in_another_unit_or_kind_are_refused(changes, says):
    sample = Streets()[0]
    known = {"images": sample.image[None], "labels": sample.labels[None], "eps": EPS, "steps": 2, "loss": "mask-ce-bal"}
    with pytest.raises(ValueError, match=says):
        apgd(model(), **{**known, "class_weights": torch.ones(4), **changes})


def test_images_that_rounding_pushed_beyond_the_range_are_taken():
    sample = Streets()[0]
    image = sample.image[None].clone()
    image[..., 0] = -3e-8
    result = last_of(spec_steps(AttackSpec(eps=EPS, steps=3), model(), image, sample.labels[None]))
    assert result.images.min() >= 0
    with pytest.raises(ValueError, match=r"got -2.* undo the normalisation and leave"):
        apgd(model(), (image - 0.5) / 0.2, sample.labels[None], EPS, 3)
