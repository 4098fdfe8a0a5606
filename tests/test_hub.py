"""Other libraries' models by name, saved small by these libraries themselves, and a web server in the hub's place."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robviz.attacks import apgd
from robviz.models import add_model, available, build, card_named, card_of, hub, load_model, remove_model
from robviz.models.pipeline import Sides, recognised
from robviz.types import InputError
from tests.shelf import Handler, shelf

pytestmark = pytest.mark.slow

PICTURE = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
#: Of 8 bits, as image processors of transformers take them.
LEVELS = (255 * PICTURE).round()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lively(module: nn.Module) -> nn.Module:
    """The module with weights large enough that its random answers differ from pixel to pixel."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return module.eval()


def segformer(folder: Path, classes: int = 5) -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    torch.manual_seed(0)
    sizes = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 2]}
    config = SegformerConfig(num_labels=classes, decoder_hidden_size=16, **sizes)
    config.id2label = dict(enumerate(("sky", "road", "car", "bus", "tree")))
    module = lively(SegformerForSemanticSegmentation(config))
    module.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}, do_reduce_labels=True).save_pretrained(folder)
    return module


def mask2former(folder: Path) -> nn.Module:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2, out_features=stages
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=4,
    )
    module = Mask2FormerForUniversalSegmentation(config).eval()
    module.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}, size_divisor=32).save_pretrained(folder)
    return module


def unet(folder: Path, classes: int = 3, **options) -> nn.Module:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    module = smp.Unet(
        "mobilenet_v2", encoder_weights=None, classes=classes, decoder_channels=(16, 16, 8, 8, 8), **options
    )
    lively(module).save_pretrained(folder)
    return module.eval()


def their_scores(module: nn.Module, folder: Path) -> torch.Tensor:
    """What transformers itself makes of the picture of 8 bits: (K, H, W)."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[LEVELS[0].permute(1, 2, 0).numpy().astype(np.uint8)], return_tensors="pt")
    with torch.no_grad():
        outputs = module(pixel_values=inputs["pixel_values"])
    (found,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[PICTURE.shape[2:]], return_segmentation_scores=True
    )
    return found.segmentation_scores


def prepared_exactly(model: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give our model the very input that the processor makes, rounded as it is after scaling."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[LEVELS[0].permute(1, 2, 0).numpy().astype(np.uint8)], return_tensors="pt")
    monkeypatch.setattr(model.module, "prepared", lambda images: inputs["pixel_values"])


def test_a_folder_of_transformers_answers_as_its_own_pipeline(tmp_path, monkeypatch):
    module = segformer(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny")
    theirs = their_scores(module, tmp_path / "tiny")
    with torch.no_grad():
        ours = model(LEVELS / 255)[0]
        # The processor rounds to 8 bits after it has scaled the picture; a differentiable model cannot.
        assert (ours.argmax(0) == theirs.argmax(0)).double().mean() > 0.95
        prepared_exactly(model, tmp_path / "tiny", monkeypatch)
        torch.testing.assert_close(model(LEVELS / 255)[0], theirs, atol=1e-4, rtol=0)
    card = card_of(model)
    assert card.classes == ("sky", "road", "car", "bus", "tree")
    assert (card.name, card.architecture) == ("tiny", "SegformerForSemanticSegmentation")
    assert card.source == "transformers, the folder tiny"


def test_a_model_that_answers_with_masks_has_logits_of_the_librarys_scores(tmp_path, monkeypatch):
    module = mask2former(tmp_path / "masks")
    model = load_model(tmp_path / "masks")
    prepared_exactly(model, tmp_path / "masks", monkeypatch)
    with torch.no_grad():
        ours = model(LEVELS / 255)[0]
    theirs = their_scores(module, tmp_path / "masks")
    torch.testing.assert_close(ours.exp(), theirs, atol=1e-4, rtol=0)
    assert ours.argmax(0).equal(theirs.argmax(0))


@pytest.mark.parametrize("classes", [3, 1])
def test_a_folder_of_segmentation_models_pytorch_answers_as_its_own_model(tmp_path, classes):
    activation = {"activation": "sigmoid"} if classes == 1 else {}
    module = unet(tmp_path / "unet", classes, **activation)
    model = load_model(tmp_path / "unet")
    with torch.no_grad():
        theirs = module(F.pad(PICTURE, (0, 8, 0, 24)))[:, :, :40, :56]
        ours = model(PICTURE)
    if classes == 1:
        assert card_of(model).classes == ("background", "foreground")
        torch.testing.assert_close(ours.softmax(1)[:, 1:], theirs, atol=1e-4, rtol=0)
    else:
        assert card_of(model).classes == ("class 0", "class 1", "class 2")
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_model_by_folder_can_be_attacked(tmp_path):
    segformer(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny")
    labels = model(PICTURE).argmax(1)
    assert apgd(model, PICTURE, labels, 16 / 255, steps=3).accuracy.item() < 1


def test_a_processor_that_does_more_than_scale_and_normalise_is_refused(tmp_path):
    from transformers import BeitImageProcessor

    segformer(tmp_path / "tiny")
    BeitImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 48, "width": 48}, do_center_crop=True
    ).save_pretrained(tmp_path / "tiny")
    with pytest.raises(InputError, match="does more than scale and normalise; open the model yourself"):
        load_model(tmp_path / "tiny")


def test_a_model_without_image_processor_is_refused_in_one_sentence(tmp_path):
    segformer(tmp_path / "tiny")
    (tmp_path / "tiny" / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"tiny has no preprocessor_config\.json, so its mean, std and size are unkn"):
        load_model(tmp_path / "tiny")


def test_code_in_a_folder_is_never_run(tmp_path):
    segformer(tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.json"
    values = json.loads(config.read_text()) | {
        "model_type": "trojan",
        "auto_map": {"AutoConfig": "trojan.TrojanConfig", "AutoModelForSemanticSegmentation": "trojan.Trojan"},
    }
    config.write_text(json.dumps(values))
    (tmp_path / "tiny" / "trojan.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises(InputError, match="transformers cannot open tiny"):
        load_model(tmp_path / "tiny")
    assert not (tmp_path / "was_run").exists()


def test_a_folder_that_no_library_saved_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    with pytest.raises(InputError, match="which library saved it"):
        load_model(tmp_path)


# ------------------------------------------------------------------------------------------ by name


def repositories(root: Path):
    """An answer of a server that holds the folders `<owner>/<name>` below root, as the hub serves them."""

    def answer(handler: Handler) -> None:
        owner, name, _, _, file = unquote(urlsplit(handler.path).path).strip("/").split("/", 4)
        path = root / owner / name / file
        if not path.is_file():
            code = "EntryNotFound" if path.parent.is_dir() else "RepoNotFound"
            return handler.start(404, 0, X_Error_Code=code)
        body = path.read_bytes()
        facts = {"X_Repo_Commit": COMMIT, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        handler.start(200, len(body), **facts)
        if handler.command == "GET":
            handler.wfile.write(body)

    return answer


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A web server in the hub's place, empty caches, and the folder it serves."""
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Handler, "do_HEAD", Handler.do_GET, raising=False)
    with shelf() as server:
        server.script = [repositories(tmp_path / "repositories")]
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server, tmp_path / "repositories"


def test_a_name_on_the_hub_is_downloaded_once_then_opens_without_the_net(hub_server, monkeypatch):
    server, folder = hub_server
    module = segformer(folder / "somebody" / "tiny")
    told = []
    card = add_model("hf/somebody/tiny", lambda received, total: told.append((received, total)))
    assert card.source == f"https://huggingface.co/somebody/tiny, commit {COMMIT}"
    size = (folder / "somebody/tiny/model.safetensors").stat().st_size
    assert (size, size) in told
    shutil.rmtree(folder)
    asked = len(server.requests)
    model = load_model("hf/somebody/tiny")
    assert len(server.requests) == asked
    for key, value in module.state_dict().items():
        assert model.module.module.state_dict()[key].equal(value), key
    assert "hf/somebody/tiny" in available(offline=True)
    assert card_named("hf/somebody/tiny") == card
    remove_model("hf/somebody/tiny")
    assert "hf/somebody/tiny" not in available()


def test_a_name_of_segmentation_models_pytorch_is_downloaded(hub_server):
    _, folder = hub_server
    module = unet(folder / "somebody" / "unet")
    model = load_model("smp/somebody/unet")
    with torch.no_grad():
        torch.testing.assert_close(model(PICTURE[..., :32, :32]), module(PICTURE[..., :32, :32]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf/somebody/nothing", "cannot download somebody/nothing from the hub: 404"),
        ("hf/nothing", "a model on the hub is named <owner>/<name>, got 'nothing'"),
        ("hf/../../etc/passwd", "a model on the hub is named <owner>/<name>"),
        ("torchvision/deeplab", "torchvision has no segmentation model 'deeplab'; choose from: deeplabv3_mobilenet"),
        (
            "elsewhere/model",
            r"unknown model 'elsewhere/model'; .* or a name such as torchvision/deeplabv3_resnet50, hf/",
        ),
    ],
)
def test_a_name_that_nothing_is_under_ends_in_one_sentence(hub_server, name, says):
    with pytest.raises(InputError, match=says) as raised:
        load_model(name)
    assert "\n" not in str(raised.value)


def test_a_library_that_is_missing_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"need transformers; run: pip install 'robviz\[transformers\]'"):
        load_model("hf/somebody/tiny")


def test_torchvisions_models_bring_their_weights_classes_and_preparation(tmp_path, monkeypatch):
    from torchvision.models import get_model_weights, segmentation

    from robviz.models import from_torchvision

    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    module = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    body = (tmp_path / "weights.pth").read_bytes()
    weights = get_model_weights("lraspp_mobilenet_v3_large").DEFAULT
    with shelf() as server:
        server.body = body
        name = f"lraspp-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        monkeypatch.setattr(from_torchvision, "url_of", lambda which: f"{server.url}/{name}")
        model = load_model("torchvision/lraspp_mobilenet_v3_large")
        load_model("torchvision/lraspp_mobilenet_v3_large")
        assert len(server.requests) == 1
    with torch.no_grad():
        theirs = F.interpolate(module(weights.transforms()(PICTURE))["out"], PICTURE.shape[2:], mode="bilinear")
        torch.testing.assert_close(model(PICTURE), theirs, atol=1e-4, rtol=0)
    card = card_of(model)
    assert (card.dataset, card.classes[0], len(card.classes)) == ("voc", "background", 21)
    assert card.metrics["COCO-val2017-VOC-labels"]["miou"] == pytest.approx(57.9)


def test_weights_of_another_hash_are_refused_and_deleted(tmp_path, monkeypatch):
    from robviz.models import from_torchvision

    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))
    with shelf() as server:
        server.body = b"something else"
        monkeypatch.setattr(from_torchvision, "url_of", lambda which: f"{server.url}/lraspp-d234d4ea.pth")
        with pytest.raises(InputError, match=r"expected d234d4ea\.\.\.; it was deleted: retry"):
            load_model("torchvision/lraspp_mobilenet_v3_large")
    assert not list((tmp_path / "cache" / "torchvision").glob("*"))


# ------------------------------------------------------------------------------------------ its parts


@pytest.mark.parametrize(
    ("sides", "size", "becomes"),
    [
        (Sides(), (40, 56), (40, 56)),
        (Sides(height=64, width=32), (40, 56), (64, 32)),
        (Sides(shortest=20), (40, 56), (20, 28)),
        (Sides(shortest=20), (56, 40), (28, 20)),
        (Sides(shortest=40, longest=50), (40, 80), (25, 50)),
        (Sides(shortest=20, multiple_of=32), (40, 56), (32, 32)),
    ],
)
def test_a_picture_is_scaled_as_the_libraries_scale_it(sides, size, becomes):
    assert sides.of(*size) == becomes


def test_the_classes_of_a_published_dataset_are_recognised_with_and_without_background():
    from robviz.datasets.labels import read_table

    ade = read_table("ade20k")["classes"]
    meaning, onto = recognised([f"{name} " for name in ade[1:]])
    assert (meaning.name, onto[0], onto[149]) == ("ade20k", 1, 150)
    meaning, onto = recognised(["__background__", *read_table("voc")["classes"][1:]])
    assert (meaning.name, onto[0]) == ("voc", 0)
    assert recognised(["class 0"] * 21) is None


def test_a_backbone_of_timm_carries_our_upernet():
    model = build("upernet/resnet10t", 5).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 48)).shape == (1, 5, 64, 48)


@pytest.mark.parametrize("name", ["upernet/resnet1", "upernet/vit_tiny_patch16_224"])
def test_a_backbone_without_a_pyramid_is_refused(name):
    with pytest.raises(InputError, match="timm"):
        build(name, 5)
