"""Every other error is one sentence: what was expected, what was given, what to do."""

from __future__ import annotations

import ast
import os
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robviz.app.serving import is_free, require_free
from robviz.cli import main
from robviz.cli.evaluate import check_command, model_of
from robviz.datasets import check, class_weights, load_dataset
from robviz.files.atomic import writable
from robviz.finetune.images import loader, read_by_workers, training_images
from robviz.finetune.recipes import RECIPES, changed
from robviz.interactive.scenario import Scenario
from robviz.models import adapt, card_of
from robviz.models.devices import device_named
from robviz.results.failures import failures
from robviz.results.plan import Run, SeaSettings
from robviz.results.samples import KeptSamples
from robviz.sea import evaluate
from robviz.types import InputError, radius_in_levels

ROOT = Path(__file__).parent.parent
AS_THEY_ARE = {"mean": (0, 0, 0), "std": (1, 1, 1)}


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("eps=4/255", 4 / 255),
        ("learning_rate=1e-3", 1e-3),
        ("iterations=1e3", 1000),
        ("sizes=64", (64,)),
        ("sizes=[[240, 320]]", ((240, 320),)),
        ("clip=null", None),
    ],
)
def test_settings_of_a_recipe_are_taken_as_they_are_meant(change, value):
    assert getattr(changed(RECIPES["photos-clean"], [change]), change.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("eps=4", r"eps must lie in \[0, 1\] .* got 4; did you mean 4/255\?"),
        ("eps=four", "eps must be a number, such as 3, 1e-3 or 4/255, got 'four'"),
        ("learning_rate=-1", "learning_rate must be a number at least 0, got -1"),
        ("batch_size=2.5", "batch_size must be a whole number, got 2.5"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("base_size=0", "base_size must be at least 1, got 0"),
        ("warm_up=5", "warm_up must be a number within 0 .. 1, a share, got 5"),
        ("sizes=[3]", r"sizes must be sides of at least 8 pixels, such as \[128, 160\]"),
        ("name=a/b", "name must consist of letters, digits, dots, dashes and underscores, got 'a/b'"),
    ],
)
def test_other_settings_are_refused_before_a_training_starts(change, says):
    with pytest.raises(ValueError, match=says):
        changed(RECIPES["photos-clean"], [change])


def test_a_radius_on_the_command_line_is_given_in_levels():
    assert radius_in_levels("4") == radius_in_levels("4/255") == 4 / 255
    assert radius_in_levels("0.25") == 0.25 / 255
    with pytest.raises(ValueError, match=r"0.0157 of them change nothing; did you mean 4\?"):
        radius_in_levels("0.0157")
    for text in ("256", "-1", "nan", "four"):
        with pytest.raises(ValueError, match=r"given in 1/255, such as 4 or 4/255, and lies within 0 .. 255; got"):
            radius_in_levels(text)


# ------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("name", ["cuda:7", "gpu", "cpu:x", "cpu:3"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(ValueError, match=f"device '{name}'.*; this machine has: cpu"):
        device_named(name)
    assert device_named(None) == device_named("cpu") == torch.device("cpu")


def test_a_port_in_use_gets_a_sentence_and_the_next_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} of 127.0.0.1 is taken .*; port (\d+) is free: add --port"):
            require_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)
    require_free("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"within 0 .. 65535, got 70000"):
        require_free("127.0.0.1", 70000)


def test_the_file_that_starts_the_app_takes_the_options_of_the_command():
    done = subprocess.run([sys.executable, "app.py", "--port", "70000"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "robviz: the port must lie in 0 .. 65535, got 70000")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with (
            pytest.raises(
                ValueError, match=f"cannot write to {place}: it is a file, or its parent is one; give a folder"
            ),
            writable(place),
        ):
            place.mkdir(parents=True)
    with pytest.raises(ValueError, match="No such file or directory; give a folder"), writable(tmp_path):
        (tmp_path / "no/such").mkdir()


def test_a_full_disk_stays_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No space left"), writable(tmp_path):
        raise OSError(28, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["finetune"], ["--help"]])
def test_a_reader_who_leaves_early_sees_no_traceback(words):
    command = [sys.executable, "-u", "-m", "robviz.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as ran:
        ran.stdout.close()
        assert ran.stderr.read() == b""


def test_an_emptied_field_of_the_app_is_answered_in_words():
    for field in ("eps_255", "steps", "seed"):
        with pytest.raises(InputError, match="ε, steps and seed must each hold a number"):
            replace(Scenario(), **{field: None}).check()


# ------------------------------------------------------------------------------------- models of one's own

BUILDERS = """
import torch
from torch import nn
def needs(path): return nn.Conv2d(3, 4, 1)
def fails(): return torch.load("/nowhere/weights.pth")
def fine(): return nn.Conv2d(3, 4, 1)
"""


def test_a_function_that_fails_is_named_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "builders.py").write_text(BUILDERS, encoding="utf-8")
    for name, says in (("needs", "TypeError: needs.. missing 1 required"), ("fails", "FileNotFoundError: ")):
        with pytest.raises(InputError, match=rf"builders.py:{name} failed: {says}.*; expected a function without"):
            model_of(f"{tmp_path}/builders.py:{name}", None)
    from robviz.models.identity import identity

    first = identity(model_of(f"{tmp_path}/builders.py:fine", None))
    (tmp_path / "builders.py").write_text(BUILDERS.replace("(3, 4, 1)", "(3, 4, 1, bias=True)"), encoding="utf-8")
    import linecache

    linecache.clearcache()
    assert identity(model_of(f"{tmp_path}/builders.py:fine", None))["code"] != first["code"]


def test_a_mapping_from_numbers_to_names_is_taken_by_its_numbers():
    net = nn.Conv2d(3, 3, 1)
    for classes in ({2: "cat", 0: "ground", 1: "person"}, {"0": "ground", "1": "person", "2": "cat"}):
        assert card_of(adapt(net, classes, **AS_THEY_ARE)).classes == ("ground", "person", "cat")
    with pytest.raises(ValueError, match=r"from the numbers 0 .. K - 1 to names, .* label2id is the other way round"):
        adapt(net, {"ground": 0, "person": 1, "cat": 2}, **AS_THEY_ARE)
    for classes in ("abc", 3, None, [1, 2, 3], []):
        with pytest.raises(ValueError, match="classes must be a list of names, one for each channel, got"):
            adapt(net, classes, **AS_THEY_ARE)


def test_one_logit_for_the_foreground_becomes_two_classes_in_one_word():
    net = nn.Conv2d(3, 1, 1)
    with pytest.raises(ValueError, match=r'one channel, .* classes=\("background", "its name"\) and output="binary"'):
        adapt(net, ["person"], **AS_THEY_ARE)
    model = adapt(lambda x: {"logits": net(x)}, ("background", "person"), output="binary", **AS_THEY_ARE, device="cpu")
    image = torch.rand(1, 3, 8, 8)
    assert model(image).argmax(1).equal((net(image)[:, 0] > 0).long())
    with pytest.raises(ValueError, match='output="binary" is for one logit a pixel'):
        adapt(nn.Conv2d(3, 2, 1), ("a", "b"), output="binary", **AS_THEY_ARE)


def test_a_gradient_of_nan_is_said_when_a_model_is_adapted():
    def rooted(x):
        return x[:, :2] + (0 * x).pow(2).sum(1, keepdim=True).sqrt()

    with pytest.warns(UserWarning, match="contains NaN or infinity for a random picture: attacks stall"):
        adapt(rooted, ("a", "b"), **AS_THEY_ARE)


MISBEHAVING = """
import torch
from torch import nn
class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 2, 3, padding=1), nn.Parameter(torch.zeros(1, 2, 64, 64))
    def forward(self, x): return self.conv(x) + self.bias
class Answers(nn.Module):
    def __init__(self, say):
        super().__init__()
        self.conv, self.say = nn.Conv2d(3, 2, 3, padding=1), say
    def forward(self, x): return self.say(self.conv(x))
def needs(path): return nn.Conv2d(3, 2, 1)
def fixed(): return Fixed()
def detached(): return Answers(lambda z: z.detach())
def pair(): return Answers(lambda z: (z, z))
def mask(): return Answers(lambda z: z.argmax(1))
def half(): return nn.Conv2d(3, 2, 1).half()
def double(): return nn.Conv2d(3, 2, 1).double()
def low(): return nn.Conv2d(3, 2, 4, 4)
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("needs", "failed: TypeError: "),
        ("fixed", "the model failed on a picture of 40 x 40: RuntimeError: "),
        ("detached", "no gradient leads from the model's logits to the picture"),
        ("pair", "got a tuple; "),
        ("mask", "return the scores of the classes, before the argmax"),
        ("half", "as its weights are torch.float16"),
        ("double", "as its weights are torch.float64"),
        ("low", "brings logits"),
    ],
)
def test_a_model_that_misbehaves_ends_the_command_in_one_sentence(tmp_path, monkeypatch, name, says):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING, encoding="utf-8")
    folder = own_folder(tmp_path / "own", count=1)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", f"{tmp_path}/misbehaving.py:{name}", "--dataset", str(folder), "--steps", "1"])
    assert says in str(end.value)
    assert "\n" not in str(end.value)


# ------------------------------------------------------------------------------------- data


def own_folder(folder, count=2, splits=("val",)):
    """Write a folder of one's own with small pictures of two classes."""
    for split in splits:
        for part in ("pictures", "masks"):
            (folder / split / part).mkdir(parents=True)
        for number in range(count):
            picture = np.full((40, 40, 3), 40 * number, np.uint8)
            Image.fromarray(picture).save(folder / split / f"pictures/{number}.png")
            Image.fromarray(picture[..., 0] % 2).save(folder / split / f"masks/{number}.png")
    places = ", ".join(f"{split}: {{images: {split}/pictures, masks: {split}/masks}}" for split in splits)
    card = f"classes: [ground, rock]\nclass_weights: [1, 1]\nsplits: {{{places}}}\n"
    (folder / "dataset.yaml").write_text(card, encoding="utf-8")
    return folder


def test_the_command_that_a_refusal_names_shows_the_problem(tmp_path, capsys):
    folder = own_folder(tmp_path, splits=("val", "test"))
    (folder / "test/masks/1.png").write_bytes(b"")
    with pytest.raises(
        SystemExit, match=r"1 samples cannot be used, first sample 1: .*1.png .*; see `robviz .*`"
    ) as end:
        main(["evaluate", "photos-clean", "--dataset", str(folder), "--split", "test"])
    _, *words = shlex.split(str(end.value).split("`")[1])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1"):
        main(words)
    assert "sample 1: " in capsys.readouterr().out
    assert check_command("mine", "test", "here")[4:] == ["--split", "test", "--root", "here"]


def test_an_endless_dataset_answers_at_once():
    endless = load_dataset("photos", "train")
    weights = class_weights(endless)
    assert weights.sum().item() == pytest.approx(1)
    torch.testing.assert_close(weights / weights[0], endless.class_weights / endless.class_weights[0])
    with pytest.raises(ValueError, match=r"photos \(train\) is endless; expected a number of images: give limit="):
        evaluate(nn.Conv2d(3, 9, 1), endless, 0.1)


@pytest.mark.slow
def test_a_damaged_picture_that_a_worker_reads_is_named_without_a_traceback(tmp_path):
    folder = own_folder(tmp_path, count=4, splits=("train",))
    path = folder / "train/pictures/2.png"
    path.write_bytes(path.read_bytes()[:60])
    recipe = replace(
        RECIPES["camvid-clean"], dataset=str(folder), iterations=1, batch_size=4, sizes=(32,), base_size=32
    )
    with pytest.raises(InputError, match=r"2.png ") as refusal:
        list(read_by_workers(loader(training_images(recipe), 0, 0, 1, workers=1)))
    assert "\n" not in str(refusal.value)
    assert "Caught" not in str(refusal.value)


def test_what_a_worker_says_is_said_without_its_traceback():
    def batches():
        yield 1
        raise InputError(
            "Caught InputError in DataLoader worker process 0.\nTraceback\nrobviz.types.InputError: x.png is cut"
        )

    with pytest.raises(InputError, match=r"^x.png is cut$"):
        list(read_by_workers(batches()))


def test_classes_that_nobody_labels_are_named_where_there_are_enough_pictures(tmp_path):
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(20):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"pictures/{number}.png")
        Image.fromarray(np.full((8, 8), 255 * (number % 2), np.uint8)).save(tmp_path / f"masks/{number}.png")
    card = "classes: [ground, rock]\nvoid: 255\nsplits: {val: {images: pictures, masks: masks}}\n"
    (tmp_path / "dataset.yaml").write_text(card, encoding="utf-8")
    said = [problem.reason for problem in check(load_dataset(tmp_path)) if "no pixel is labelled as" in problem.reason]
    assert said == ["no pixel is labelled as 1 of the 2 classes: rock; are void and the numbers in the masks right?"]


def test_an_evaluation_of_own_pictures_opens_from_its_folder_alone(tmp_path):
    from tests.test_believable import Streets, model

    folder = tmp_path / "out"
    settings = SeaSettings("one", (Run("mask-ce", "apgd", 3),))
    evaluate(model(), Streets(), 0.05, settings, out=folder, keep_masks=True, keep_pictures=True)
    found = failures(folder)
    assert found.missing == ""
    assert found.flips is not None
    assert isinstance(found.dataset, KeptSamples)
    for kept, sample in zip(found.dataset, Streets()):
        assert kept.name == sample.name
        assert kept.labels.equal(sample.labels)
        assert (kept.image - sample.image).abs().max() <= 0.51 / 255
    (folder / "samples/about.json").write_text("[]", encoding="utf-8")
    assert "about.json is missing or damaged; delete" in failures(folder).missing


# ------------------------------------------------------------------------------------- Windows


def opens_text_silently(call: ast.Call) -> bool:
    """True for a call that reads or writes text without saying its encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    if "encoding" in given:
        return False
    if name in ("read_text", "write_text"):
        return True
    if name == "open":
        is_method = isinstance(call.func, ast.Attribute)
        mode = given.get("mode", [getattr(one, "value", None) for one in call.args][0 if is_method else 1 :][:1])
        is_of_a_path = not call.args or isinstance(call.args[0], ast.Constant) if is_method else True
        return is_of_a_path and "b" not in str(mode)
    return given.get("text") is True or given.get("universal_newlines") is True


@pytest.mark.slow
def test_every_text_file_is_opened_as_utf_8():
    silent = []
    for path in sorted({*(ROOT / "robviz").rglob("*.py"), *(ROOT / "docs").rglob("*.py"), ROOT / "app.py"}):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        silent += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if opens_text_silently(call)]
    assert silent == []


@pytest.mark.parametrize(
    ("code", "is_silent"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("path.open(mode='wb')", False),
        ("open(path, 'rb')", False),
        ("archive.open(entry)", False),
    ],
)
def test_a_silent_encoding_is_found(code, is_silent):
    assert opens_text_silently(ast.parse(code).body[0].value) == is_silent


EVERYTHING = """
import importlib, locale, pkgutil, sys, warnings
from pathlib import Path
warnings.filterwarnings("error", category=EncodingWarning, module="robviz")
assert "utf" not in locale.getpreferredencoding(False).lower(), locale.getpreferredencoding(False)
import robviz
for module in pkgutil.walk_packages(robviz.__path__, "robviz."):
    if not module.name.endswith("__main__") and "photos_masks" not in module.name:
        importlib.import_module(module.name)
from robviz.app import build_app
build_app()
"""

FILES = """
from PIL import Image
from torch import nn
from robviz.app.serving import logins_in
from robviz.cli import main
from robviz.datasets import load_dataset
from robviz.interactive.batch import attack_pictures
from robviz.viewer.folder import folder_page
from robviz.viewer.page import save_page
from robviz.attacks import AttackSpec
from robviz.models import adapt, card_of
from robviz.models.card import Card
from robviz.results.annotations import read_annotations, write_annotation
from robviz.results.failures import failures, to_csv
from robviz.results.plan import Run, SeaSettings
from robviz.results.report import Report
from robviz.sea import evaluate

CAT = chr(0x732B) + chr(0xE9)  # a cat in Japanese, and an accent: in no encoding of one byte
folder, out = Path(sys.argv[1]), Path(sys.argv[1]) / "out"
for place, mode in (("pictures", "RGB"), ("masks", "L")):
    (folder / place).mkdir()
    Image.new(mode, (40, 40)).save(folder / place / "one.png")
(folder / "names.txt").write_bytes(b"one")
(folder / "dataset.yaml").write_bytes(
    f"name: {CAT}\\nclasses: [{CAT}, b]\\nclass_weights: [1, 1]\\n"
    "splits: {val: {images: pictures, masks: masks, list: names.txt}}".encode()
)
dataset = load_dataset(folder)
assert dataset.name == dataset.classes[0] == CAT
model = adapt(nn.Conv2d(3, 2, 1), dataset.classes, mean=(0,) * 3, std=(1,) * 3, dataset=dataset, name=CAT)
report = evaluate(model, dataset, 0.1, SeaSettings(CAT, (Run("mask-ce", "apgd", 1),)), out=out, keep_masks=True)
assert CAT in (out / "report.md").read_bytes().decode()
assert Report.load(out / "report.json") == report
write_annotation(out, 0, CAT)
assert read_annotations(out) == {"0": CAT}
found = failures(out)
assert CAT in to_csv(found, found.rows, {"0": CAT})
card_of(model).save(out / "card.json")
assert Card.load(out / "card.json").classes[0] == CAT
(folder / "logins").write_bytes(f"{CAT}:{CAT}".encode())
assert logins_in(folder / "logins") == ((CAT, CAT),)
list(attack_pictures(model, [folder / "pictures/one.png"], AttackSpec(eps=0.1, steps=1), out / "attacked"))
save_page(folder_page(out / "attacked").text, out / "index.html")
assert CAT in (out / "index.html").read_bytes().decode()
main(["data", "weights", str(folder), "--split", "val"])  # to a console that has no such letter
"""


def under_ascii(code, *words):
    """Run Python where the default encoding of text is ASCII; returns its output."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", code, *words]
    ran = subprocess.run(command, capture_output=True, env=environment)
    assert ran.returncode == 0, ran.stderr.decode("utf-8", "replace")[-2000:]
    return ran.stdout


@pytest.mark.slow
@pytest.mark.long
def test_modules_the_app_and_every_kind_of_text_file_work_under_another_default_encoding(tmp_path):
    assert rb"\u732b\xe9" in under_ascii(EVERYTHING + FILES, str(tmp_path))


def test_a_list_of_names_may_begin_with_a_mark_of_its_encoding_and_another_encoding_is_said(tmp_path):
    folder = own_folder(tmp_path)
    card = (folder / "dataset.yaml").read_text(encoding="utf-8").replace("val/masks}", "val/masks, list: names.txt}")
    (folder / "dataset.yaml").write_text(card, encoding="utf-8-sig")  # as Windows' editors do
    (folder / "names.txt").write_text("1\n0\n", encoding="utf-8-sig")
    assert [sample.name for sample in load_dataset(folder)] == ["1", "0"]
    (folder / "names.txt").write_text("1\n0\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"names.txt is not text in UTF-8; save it in that encoding"):
        load_dataset(folder)
