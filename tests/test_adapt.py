"""Models of other libraries, with random weights and few channels, as one of ours."""

from __future__ import annotations

import socket
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robviz.attacks import apgd
from robviz.losses import LOSSES, pixel_loss
from robviz.models import adapt, card_of, fingerprint
from robviz.results.plan import Run, SeaSettings
from robviz.sea import evaluate
from robviz.types import Dataset, Sample
from tests.small import Bends

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOURS = {"mean": MEAN, "std": STD}
AS_THEY_ARE = {"mean": (0, 0, 0), "std": (1, 1, 1)}
CLASSES = ("sky", "road", "car", "bus", "void")


class Streets(Dataset):
    """Two random pictures whose sides are no multiples of anything."""

    name, split = "streets", "val"
    classes = ("road", "vehicle", "sky", "tram")
    palette = ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 41, 38, generator=generator)
        return Sample(f"street-{index}", image, torch.randint(-1, 3, (41, 38), generator=generator))


VEHICLES = {"sky": "sky", "road": 0, "car": "vehicle", 3: "vehicle"}
ONTO_STREETS = {"dataset": Streets(), "class_map": VEHICLES, "void_index": 4}


def normalised(images):
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def lraspp():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    return model, {}, lambda x: model(x)["out"]


def deeplab():
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    return model, {}, lambda x: model(x)["out"]


def segformer():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=5,
            depths=[1] * 4,
            hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
        )
    )
    # As transformers' own image processor brings them to the picture's size.
    return model, {}, lambda x: F.interpolate(model(pixel_values=x).logits, x.shape[2:], mode="bilinear")


def upernet():
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], out_features=stages)
    model = UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=5, use_auxiliary_head=False)
    )
    return model, {}, lambda x: model(pixel_values=x).logits


def unet():
    import segmentation_models_pytorch as smp

    model = smp.Unet("mobilenet_v2", encoder_weights=None, classes=5, decoder_channels=(16, 16, 8, 8, 8))
    return model, {"multiple_of": 32}, lambda x: model(F.pad(x, (0, 26, 0, 23)))[:, :, :41, :38]


@pytest.mark.slow
@pytest.mark.parametrize("library", [lraspp, deeplab, segformer, upernet, unet])
def test_a_librarys_model_answers_as_there_and_can_be_attacked_and_evaluated(library, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)  # nothing is downloaded
    torch.manual_seed(0)
    module, arguments, there = library()
    images = torch.stack([sample.image for sample in Streets()])
    for part in module.train().modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1  # as trained on these pictures: without, deep random networks answer with a constant
    with torch.no_grad():
        module(F.pad(normalised(images), (0, 26, 0, 23)))
        model = adapt(module, CLASSES, **COLOURS, **arguments)
        torch.testing.assert_close(model(images), there(normalised(images)))

    labels = model(images).argmax(1)
    broken = apgd(model, images, labels, 16 / 255, steps=3)
    assert (broken.accuracy < 1).all()

    onto = adapt(module, CLASSES, **COLOURS, **arguments, **ONTO_STREETS)
    report = evaluate(onto, Streets(), 8 / 255, SeaSettings("tiny", (Run("mask-ce", "apgd", 2),)))
    told = report.plan["model"]
    assert (told["name"], told["sha256"]) == (type(module).__name__, fingerprint(onto))
    assert told["wrapping"]["class_of_channel"] == [2, 0, 1, 1, -1]
    labels = torch.stack([sample.labels for sample in Streets()])
    is_right = (onto(images).argmax(1) == labels)[labels >= 0]
    assert report.rows["clean"]["accuracy_pooled"] == pytest.approx(is_right.double().mean().item())


def fixed(logits):
    """A module whose answer to any picture is these logits (K,), with a path for the gradient."""
    return lambda x: torch.as_tensor(logits).view(1, -1, 1, 1) + 0 * x[:, :1]


IMAGES = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_a_function_becomes_a_module_with_a_card():
    def brightness(x):
        return torch.cat([x.sum(1, keepdim=True), -x.sum(1, keepdim=True)], 1)

    model = adapt(brightness, ("bright", "dark"), **AS_THEY_ARE)
    assert isinstance(model, nn.Module)
    assert not model.training
    assert model(IMAGES).equal(brightness(IMAGES))
    card = card_of(model)
    assert (card.name, card.classes, card.dataset) == ("brightness", ("bright", "dark"), "")
    assert card.source == "adapted from tests.test_adapt." + brightness.__qualname__
    assert card_of(adapt(brightness, ("bright", "dark"), **AS_THEY_ARE, name="mine")).name == "mine"


def test_classes_that_go_to_one_are_added_as_probabilities_and_their_gradient_too():
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0, 2.0])
    probability = logits[:4].softmax(0)  # without void
    answer = adapt(fixed(logits), CLASSES, **AS_THEY_ARE, **ONTO_STREETS)(IMAGES)
    expected = torch.stack([probability[1], probability[2] + probability[3], probability[0], torch.tensor(0.0)])
    torch.testing.assert_close(answer.softmax(1), expected.view(1, 4, 1, 1).expand_as(answer))

    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1).double()
    model = adapt(conv.float(), CLASSES, **COLOURS, **ONTO_STREETS).double()
    assert torch.autograd.gradcheck(model, IMAGES[:1, :, :3, :3].double().requires_grad_())


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_minds_a_class_that_nobody_predicts(loss, scale):
    model = adapt(lambda x: scale * torch.cat([x, x], 1)[:, :5], CLASSES, **AS_THEY_ARE, **ONTO_STREETS)
    images = IMAGES.clone().requires_grad_()
    labels = torch.randint(-1, 4, (2, 9, 7), generator=torch.Generator().manual_seed(0))
    values = pixel_loss(loss, model(images), labels, torch.ones(4), 0.5)
    (gradient,) = torch.autograd.grad(values.sum(), images)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert (model(images).argmax(1) != 3).all()


def test_classes_of_equal_names_find_each_other_and_the_rest_is_said():
    with pytest.warns(UserWarning, match="no class named vehicle, tram and will never predict them"):
        model = adapt(fixed([1.0, 2.0, 9.0, 9.0, 9.0]), CLASSES, **AS_THEY_ARE, dataset=Streets())
    assert model(IMAGES)[0, [0, 2], 0, 0].tolist() == [2, 1]
    assert (card_of(model).classes, card_of(model).dataset) == (Streets.classes, "streets")
    assert card_of(model).palette == Streets.palette


def test_a_model_of_the_datasets_own_classes_is_left_as_it_is():
    class Doors(Streets):
        classes = ("door", "wall", "door", "sky")

    model = adapt(fixed([1.0, 2.0, 3.0, 4.0]), Doors.classes, **AS_THEY_ARE, dataset=Doors())
    assert model(IMAGES)[0, :, 0, 0].tolist() == [1, 2, 3, 4]


def test_the_channel_of_void_is_dropped():
    model = adapt(fixed([7.0, 1.0, 2.0]), ("void", "a", "b"), **AS_THEY_ARE, void_index=0)
    assert model(IMAGES)[0, :, 0, 0].tolist() == [1, 2]
    assert card_of(model).classes == ("a", "b")


@pytest.mark.parametrize("num_classes", [2, 9, 21, 151])
def test_generated_colours_differ(num_classes):
    model = adapt(fixed(torch.zeros(num_classes)), [str(k) for k in range(num_classes)], **AS_THEY_ARE)
    palette = card_of(model).palette
    assert len(set(palette)) == num_classes
    assert all(0 <= value <= 255 for colour in palette for value in colour)


def test_output_chooses_by_key_or_function():
    a, b = fixed([1.0, 2.0]), fixed([3.0, 4.0])
    for module, output in [
        (lambda x: (a(x), b(x)), 1),
        (lambda x: {"a": a(x), "b": b(x)}, "b"),
        (lambda x: [a(x)], lambda answer: answer[0] + 2),
    ]:
        assert adapt(module, ("a", "b"), **AS_THEY_ARE, output=output)(IMAGES)[0, :, 0, 0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        (lambda x: (x, x), {}, r"float tensor \(B, K, h, w\) or a dictionary .* got a tuple; output= selects"),
        (lambda x: {"a": x, "b": x}, {}, "got a dict of 'a', 'b'; output= selects"),
        (lambda x: {"a": x}, {"output": "b"}, "output='b' is not in what the module returned, a dict of 'a'"),
        (lambda x: x.argmax(1), {}, r"got torch.int64 \(1, 64, 64\)"),
        (fixed([1.0, 2.0]), {}, "returned 2 channels, but 3 classes were given"),
        (fixed([1.0, float("nan"), 2.0]), {}, "returned NaN or infinite logits"),
        (lambda x: x.softmax(1), {}, "sum to 1 like probabilities; return logits"),
        (lambda x: x.detach(), {}, "no gradient flows from the module's logits to the picture"),
        (lambda x: x / x.missing, {}, "failed on a picture of 64 x 64: AttributeError: .* size= is"),
        (fixed([0.0] * 3), {"mean": (123.7, 116.3, 103.5)}, r"of colours in \[0, 1\], got .*; divide by 255"),
        (fixed([0.0] * 3), {"mean": 3 * (float("nan"),)}, r"of colours in \[0, 1\], got "),
        (fixed([0.0] * 3), {"std": (1, 1, 0)}, "std must be above 0"),
        (fixed([0.0] * 3), {"std": (0.5,)}, "must have 3 numbers each"),
        (fixed([0.0] * 3), {"void_index": 255}, "void_index must be one of the 3 channels"),
        (fixed([0.0] * 3), {"multiple_of": 0}, "multiple_of must be at least 1, got 0"),
        (fixed([0.0] * 3), {"palette": [(0, 0, 0)]}, "the palette has 1 colours for 3 classes"),
        (fixed([0.0] * 3), {"class_map": {"a": "road"}}, "give dataset= too"),
        (fixed([0.0] * 3), {"dataset": Streets()}, "no class of the model is mapped to one of streets's"),
        (
            fixed([0.0] * 3),
            {"dataset": Streets(), "class_map": {"z": "road"}},
            "'z', which is not a class of the model",
        ),
        (
            fixed([0.0] * 3),
            {"dataset": Streets(), "class_map": {"a": 4}},
            "4, which is not a class of streets; it has road",
        ),
        ("missing.pt", {}, "there is no file missing.pt"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(module, arguments, says):
    with pytest.raises(ValueError, match=says) as raised:
        adapt(module, ("a", "b", "c"), **{**AS_THEY_ARE, **arguments})
    assert "\n" not in str(raised.value)


class Dropping(nn.Module):
    """Five classes, with a mode that shows."""

    def __init__(self):
        super().__init__()
        self.model = Bends(5)

    def forward(self, x):
        return {"out": self.model(x)}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("freeze", [False, True])
def test_a_torchscript_file_is_attacked_like_the_module_it_was_made_of(tmp_path, freeze):
    module = Dropping().eval()
    script = torch.jit.trace(module, torch.rand(1, 3, 16, 16), strict=False)
    (torch.jit.freeze(script) if freeze else script).save(tmp_path / "mine.pt")
    same_attack(adapt(tmp_path / "mine.pt", CLASSES, **COLOURS), adapt(module, CLASSES, **COLOURS))


@pytest.mark.slow
def test_an_exported_file_is_attacked_like_the_module_it_was_made_of(tmp_path):
    module, sizes = Dropping().eval(), {axis: torch.export.Dim.AUTO for axis in (0, 2, 3)}
    program = torch.export.export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes={"x": sizes})
    torch.export.save(program, tmp_path / "mine.pt2")
    same_attack(adapt(str(tmp_path / "mine.pt2"), CLASSES, **COLOURS), adapt(module, CLASSES, **COLOURS))


def same_attack(opened, module):
    assert card_of(opened).name == "mine"
    assert not any(part.training for part in opened.modules())
    labels = module(IMAGES).argmax(1)
    ours, theirs = (apgd(model, IMAGES, labels, 4 / 255, steps=3) for model in (opened, module))
    torch.testing.assert_close(ours.images, theirs.images)
    assert (ours.accuracy < 1).all()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_file_of_something_else_is_refused(tmp_path, suffix):
    torch.save(Bends().state_dict(), tmp_path / f"state{suffix}")
    with pytest.raises(ValueError, match=r"is not a (TorchScript|torch.export) file: .* open a state dict .* yourself"):
        adapt(tmp_path / f"state{suffix}", CLASSES, **COLOURS)


def test_other_weights_colours_or_class_maps_have_another_fingerprint():
    def print_of(**arguments):
        return fingerprint(adapt(Bends(5), CLASSES, **{**COLOURS, **ONTO_STREETS, **arguments}))

    assert print_of() == print_of()
    others = {print_of(**AS_THEY_ARE), print_of(class_map={**VEHICLES, "car": "tram"}), print_of()}
    module = Bends(5)
    nn.init.zeros_(module.layers[4].bias)
    others.add(fingerprint(adapt(module, CLASSES, **COLOURS, **ONTO_STREETS)))
    assert len(others) == 4


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_the_checks_see_through_the_adapter():
    from robviz.checks import check

    labels = Bends(5).eval()(IMAGES).argmax(1)
    sound = adapt(Bends(5), CLASSES, **AS_THEY_ARE)
    assert check(sound, IMAGES, labels, eps=0.1) == {}
    assert "train mode" in check(sound.train(), IMAGES, labels, eps=0.1)
    rounded = adapt(lambda x: Bends(5).eval()((8 * x).round() / 8), CLASSES, **AS_THEY_ARE)
    assert "vanishing gradient" in check(rounded, IMAGES, labels, eps=0.1)


BUILDER = """
import robviz
from helper import module

def build():
    return robviz.models.adapt(
        module, list("abcdefghi"), mean=(0, 0, 0), std=(1, 1, 1), dataset=robviz.load_dataset("photos"),
        class_map={"a": "background", "b": "cat"}, name="mine",
    )

def numbers():
    return [1, 2]
"""
HELPER = """
import torch
from torch import nn

torch.manual_seed(0)
module = nn.Conv2d(3, 9, 3, padding=1)
"""


@pytest.fixture
def builder(tmp_path, monkeypatch):
    (tmp_path / "builder.py").write_text(BUILDER)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return tmp_path


QUICKLY = ("--settings", "quick", "--limit", "1", "--split", "photographs")


@pytest.mark.parametrize("given", [["builder:build"], ["--model", "builder:build"], ["--model", "elsewhere"]])
def test_a_function_of_ones_own_is_evaluated_from_the_command_line(builder, given, monkeypatch, capsys):
    from robviz import sea
    from robviz.cli import main

    monkeypatch.setitem(sea.SETTINGS, "quick", SeaSettings("quick", (Run("mask-ce", "apgd", 1),)))
    if given[-1] == "elsewhere":
        given = ["--model", f"{builder / 'builder.py'}:build"]
    else:
        monkeypatch.chdir(builder)
    main(["evaluate", *given, *QUICKLY])
    assert capsys.readouterr().out.startswith("# mine on photos (photographs) at 4/255, quick")


def test_the_command_takes_a_seed(builder, monkeypatch, capsys):
    from robviz import sea
    from robviz.cli import main

    monkeypatch.setitem(sea.SETTINGS, "quick", SeaSettings("quick", (Run("mask-ce", "apgd", 1),)))
    monkeypatch.chdir(builder)
    main(["evaluate", "builder:build", *QUICKLY, "--seed", "7"])
    assert ", seed 7, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nosuchmodule:build", "cannot import nosuchmodule: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("nosuch.py:build", "cannot import nosuch.py: FileNotFoundError: "),
        ("broken:build", "cannot import broken: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("builder:missing", "builder has no function 'missing'; expected one that returns a model"),
        ("builder:BUILDER", "builder has no function 'BUILDER'"),
        (
            "builder:numbers",
            "builder:numbers must return a torch.nn.Module, got list; robviz.models.adapt can make one",
        ),
        ("photos-cleen", "unknown model 'photos-cleen'; choose from: camvid-at"),
    ],
)
def test_a_model_that_cannot_be_had_ends_in_one_sentence(builder, model, says, monkeypatch):
    from robviz.cli import main

    monkeypatch.chdir(builder)
    with pytest.raises(SystemExit, match=f"^robviz: {says}") as raised:
        main(["evaluate", model, *QUICKLY])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", [[], ["photos-clean", "--model", "photos-clean"]])
def test_one_model_is_evaluated(given, capsys):
    from robviz.cli import main

    with pytest.raises(SystemExit):
        main(["evaluate", *given, *QUICKLY])
    assert "--model" in capsys.readouterr().err
