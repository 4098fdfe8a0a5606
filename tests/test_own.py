"""A model of one's own: from a file of weights with or without a card, or from a folder, kept under a name."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from robviz.app.bar import kind_of, model_choices
from robviz.app.views.models import parts_of, require_readable
from robviz.files.paths import bundled_path
from robviz.models import available, build, card_named, card_of, keep_own, load_model, open_own
from robviz.models.card import Card
from robviz.models.own import name_for
from robviz.types import InputError
from tests.test_hub import segformer, unet

pytestmark = pytest.mark.slow

SHIPPED = bundled_path("checkpoints") / "photos-robust.safetensors"
ARCHITECTURE = "upernet-convnext-small-cvst"
PICTURE = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights():
    """The tensors of one of our architectures, for three classes."""
    torch.manual_seed(0)
    return build(ARCHITECTURE, 3).state_dict()


def saved(state, path):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_without_a_card_are_recognised_by_their_tensors_and_kept(tmp_path, weights, suffix):
    path = saved(weights, tmp_path / f"My Model{suffix}")
    model = open_own(path)
    card = keep_own(model, path, name_for(path))
    assert (card.name, card.architecture, card.classes) == ("my-model", ARCHITECTURE, ("class 0", "class 1", "class 2"))
    path.unlink()
    assert "my-model" in available(offline=True)
    assert "my-model" in [name for _, name in model_choices()]
    kept = load_model("my-model")
    assert kept(PICTURE).equal(model(PICTURE))
    assert card_of(kept) == card == card_named("my-model")


def test_weights_with_their_card_keep_what_it_says(tmp_path):
    card = tmp_path / "uploaded" / "card.json"  # gradio puts each upload into a folder of its own
    card.parent.mkdir()
    card.write_text(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    kept = keep_own(open_own(SHIPPED, card), SHIPPED, "mine")
    assert kept == replace(card_named("photos-robust"), name="mine")
    assert load_model("mine")(PICTURE).equal(load_model("photos-robust")(PICTURE))
    assert kind_of(kept).startswith("robust, ")


def test_classes_of_a_known_dataset_can_be_chosen_if_their_number_fits(tmp_path, weights):
    path = saved(build(ARCHITECTURE, 9).state_dict(), tmp_path / "nine.pth")
    card = card_of(open_own(path, meaning="photos"))
    assert (card.dataset, card.classes[2], len(card.palette)) == ("photos", "cat", 9)
    with pytest.raises(InputError, match=r"nine\.pth has 9 classes, voc has 21; choose numbered classes"):
        open_own(path, meaning="voc")
    with pytest.raises(InputError, match="the classes must be those of photos, voc, ade20k, camvid, or numbered"):
        open_own(path, meaning="../voc")


def test_a_folder_is_copied_without_its_code_and_opens_when_the_original_is_gone(tmp_path):
    folder = tmp_path / "Tiny"
    segformer(folder)
    (folder / "trojan.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    card = keep_own(open_own(folder), folder, "tiny")
    kept = tmp_path / "cache" / "models" / "tiny"
    assert sorted(file.name for file in kept.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    folder.rename(tmp_path / "elsewhere")
    assert card_named("tiny") == card
    assert card_of(load_model("tiny")).name == "tiny"
    assert "tiny" in available(offline=True)
    with pytest.raises(InputError, match="there is a model named 'tiny' already"):
        keep_own(open_own(tmp_path / "elsewhere"), tmp_path / "elsewhere", "tiny")
    assert not (tmp_path / "was_run").exists()


class Trojan:
    """Run code when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("wrap", [lambda trojan: trojan, lambda trojan: {"state_dict": trojan}])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_its_code_not_run(tmp_path, wrap, zipped):
    trojan, path = wrap(Trojan(tmp_path / "was_run")), tmp_path / "model.pt"
    torch.save(trojan, path) if zipped else path.write_bytes(pickle.dumps(trojan, protocol=2))
    with pytest.raises(InputError, match="is not a checkpoint of tensors alone"):
        open_own(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(("saved", "library"), [(segformer, "transformers"), (unet, "segmentation_models_pytorch")])
def test_weights_of_a_folder_that_hold_code_are_refused_and_it_is_not_run(tmp_path, saved, library):
    folder = tmp_path / "tiny"
    saved(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Trojan(tmp_path / "was_run")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"{library} cannot open tiny"):
        open_own(folder)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (
            "model.py",
            b"print()",
            r"a file of weights ends in \.safetensors, \.pt, \.pth; got model\.py, which is not read",
        ),
        ("model.pt", b"", "it is empty; fetch it again"),
        ("model.pth", b"<!doctype html><p>", "it is a web page; fetch the file that the page offers"),
        ("model.safetensors", b"nonsense", "it is damaged or truncated"),
        ("nowhere.pt", None, "there is no file or folder .*nowhere.pt; check the path"),
    ],
)
def test_a_file_that_holds_no_model_gets_one_sentence(tmp_path, file, content, says):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=says) as raised:
        open_own(tmp_path / file)
    assert "\n" not in str(raised.value)


def test_weights_of_no_architecture_and_a_folder_of_no_library_get_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"other\.pt fits none of upernet-.*; save the model with save_pretrained"):
        open_own(saved({"weight": torch.zeros(3)}, tmp_path / "other.pt"))
    with pytest.raises(InputError, match=r"has no config\.json: expected a folder that save_pretrained"):
        open_own(tmp_path)
    bad = saved(
        {key: value * float("nan") for key, value in build(ARCHITECTURE, 3).state_dict().items()}, tmp_path / "bad.pt"
    )
    with pytest.raises(InputError, match="NaN or infinite logits"):
        open_own(bad)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": ["a", "b"]}, "a palette has three levels"),
        ({"classes": [f"class {k}" for k in range(9)]}, "the card names photos, whose classes are others"),
        ({"classes": 9}, "is not a robviz model card"),
        ({"name": 1}, "a card has texts"),
        ({"palette": [[0, 0, 999]] * 9}, "a palette has three levels"),
        ({"architecture": "../x"}, "unknown architecture"),
    ],
)
def test_a_card_that_cannot_belong_to_weights_is_refused(tmp_path, change, says):
    card = tmp_path / "card.json"
    card.write_text(json.dumps(json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8")) | change))
    with pytest.raises(InputError, match=says):
        open_own(SHIPPED, card)


@pytest.mark.parametrize(
    ("metrics", "training"),
    [
        ({"val": 1}, {}),
        ({}, {"recipe": {}}),
        ({"val": {"clean_miou": "x"}}, {}),
        ({"val": {"clean_miou": 0.5, "attacked_miou": 0.1}}, {}),
    ],
)
def test_a_card_that_would_keep_the_app_from_starting_is_refused(metrics, training):
    shipped = card_named("photos-robust")
    require_readable(shipped)
    require_readable(Card("a", "b", "", ("c", "d"), ((0, 0, 0),) * 2, ""))
    with pytest.raises(InputError, match="the figures on the card cannot be read"):
        require_readable(replace(shipped, metrics=metrics, training=training))


def test_what_is_added_is_one_model(tmp_path):
    assert parts_of(["/a/m.pt"], "") == parts_of(None, "/a/m.pt")
    weights, card = parts_of(["/b/m.json", "/a/m.safetensors"], "")
    assert (weights.name, card.name) == ("m.safetensors", "m.json")
    for files, path, says in (
        (None, "", "expected one file of weights .* got 0 and 0"),
        (["a.pt", "b.pt"], "", "got 2 and 0"),
        (["a.json"], "", "got 0 and 1"),
        (["a.pt"], "/b", "either files or a path"),
    ):
        with pytest.raises(InputError, match=says):
            parts_of(files, path)


def test_a_name_is_made_of_the_files_own():
    assert [name_for(name) for name in ("UperNet_VOC.v2.pth", "/a/My Folder/", "___.pt", "x" * 60)] == [
        "upernet-voc-v2",
        "my-folder",
        "my-model",
        "x" * 40,
    ]
