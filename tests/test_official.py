"""The official configurations, with the values of their files."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from robviz import cli
from robviz.finetune.recipes import RECIPES
from robviz.models import build
from robviz.paper import configs as official


def configuration(dataset, model, train, optimizer, scheduler, evaluation):
    """One of the files; what they all say is here."""
    name, classes = dataset
    base, crop = (512, 473) if classes == 21 else (520, 512)
    epochs, batch, is_adversarial, attack, steps = train
    (optimizer, rate, decay), (schedule, power, warm_up) = optimizer, scheduler
    return {
        "DEVICE": "cuda",
        "SAVE_DIR": "PATH-TO-SAVE_DIR",
        "ADDENDUM": "will-be-appended-at-the-end-of-logfoldername",
        "MODEL": {"NAME": model[0], "BACKBONE": model[1], "PRETRAINED": "Location-of-pretrained-backbone-model"},
        "DATASET": {"NAME": name, "ROOT": "location", "IGNORE_LABEL": -1, "N_CLS": classes, "SEED": 0},
        "TRAIN": {
            "BASE_SIZE": base,
            "IMAGE_SIZE": [crop, crop],
            "BATCH_SIZE": batch,
            "EPOCHS": epochs,
            "EVAL_INTERVAL": 32,
            "ADVERSARIAL": is_adversarial,
            "ATTACK": attack,
            "LOSS_FN": "pgd",
            "EPS": 4,
            "N_ITERS": steps,
            "FREEZE": False,
            "AMP": False,
            "DDP": True,
        },
        "LOSS": {"NAME": "CrossEntropy", "CLS_WEIGHTS": False},
        "OPTIMIZER": {"NAME": optimizer, "LR": rate, "WEIGHT_DECAY": decay},
        "SCHEDULER": {"NAME": schedule, "POWER": power, "WARMUP": warm_up, "WARMUP_RATIO": 1e-05},
        "EVAL": {
            "NAME": evaluation[0],
            "BACKBONE": model[1],
            "N_CLS": classes,
            "MODEL_PATH": None,
            "BASE_SIZE": base,
            "IMAGE_SIZE": [crop, crop],
            "BATCH_SIZE": evaluation[1],
        },
    }


UPERNET = ("UperNetForSemanticSegmentation", "ConvNeXt-T_CVST")
VOC, ADE20K = ("pascalaug", 21), ("ADE20K", 151)
WARM = "warmuppolylr"
FILES = {
    "pascalvoc_convnext_cvst": configuration(
        VOC, UPERNET, (50, 32, False, "pgd", 2), ("AdamW", 1e-3, 1e-2), (WARM, 1.0, 10), ("pascalvoc", 32)
    ),
    "pascalvoc_convnext_rob_cvst": configuration(
        VOC, UPERNET, (50, 32, True, "pgd", 5), ("AdamW", 1e-3, 1e-2), (WARM, 1.0, 10), ("pascalvoc", 32)
    ),
    "ade20k_convnext_cvst": configuration(
        ADE20K, UPERNET, (128, 16, False, "apgd", 5), ("AdamW", 1e-4, 5e-2), (WARM, 1.0, 20), ("ADE20K", 24)
    ),
    "ade20k_convnext_rob_cvst": configuration(
        ADE20K, UPERNET, (128, 16, True, "pgd", 20), ("AdamW", 1e-4, 5e-2), (WARM, 1.0, 5), ("ADE20K", 24)
    ),
    "ade20k_segmenter_clean": configuration(
        ADE20K,
        ("SegMenter", "vit_small_patch16_224"),
        (128, 16, True, "pgd", 5),
        ("sgd", 2e-3, 1e-4),
        ("polylr", 0.9, 10),
        ("ADE20K", 16),
    ),
}


def written(tmp_path, values, name="file"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_official_configuration_is_a_recipe(name, tmp_path):
    values = FILES[name]
    recipe, root, out = official.training(written(tmp_path, values, name))
    assert (recipe.name, root, out) == (name, "location", "PATH-TO-SAVE_DIR")
    assert recipe.initial == "Location-of-pretrained-backbone-model"
    assert recipe.epochs == values["TRAIN"]["EPOCHS"]
    assert recipe.batch_size == values["TRAIN"]["BATCH_SIZE"]
    assert recipe.learning_rate == values["OPTIMIZER"]["LR"]
    assert recipe.eps == (4 / 255 if values["TRAIN"]["ADVERSARIAL"] else 0)
    assert recipe.attack_steps == values["TRAIN"]["N_ITERS"]
    assert recipe.warm_up_ratio == 1e-5


def test_a_configuration_says_what_the_recipe_of_the_paper_says(tmp_path):
    """But for the warm-up, the batch of one process, and where the backbone lies."""
    recipe, _, _ = official.training(written(tmp_path, FILES["pascalvoc_convnext_rob_cvst"]))
    paper = RECIPES["voc-upernet-convnext-t-pirat-5-50"]
    differences = {key for key in vars(paper) if getattr(paper, key) != getattr(recipe, key)}
    assert differences == {"name", "initial", "batch_size", "warm_up"}
    assert (recipe.batch_size, recipe.warm_up) == (32, 0.2)


def test_the_segmenter_of_the_files_does_not_warm_up_and_moves_by_sgd(tmp_path):
    recipe, _, _ = official.training(written(tmp_path, FILES["ade20k_segmenter_clean"]))
    assert (recipe.architecture, recipe.optimizer, recipe.warm_up, recipe.power) == ("segmenter-vit-s", "sgd", 0.0, 0.9)


def test_a_quote_left_open_is_closed(tmp_path):
    path = written(tmp_path, FILES["pascalvoc_convnext_cvst"])
    path.write_text(path.read_text().replace("SAVE_DIR: PATH-TO-SAVE_DIR", "SAVE_DIR        : 'PATH-TO-SAVE_DIR"))
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(path.read_text())
    assert official.training(path)[2] == "PATH-TO-SAVE_DIR"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TRAIN.ATTACK", "apgd", "TRAIN.ATTACK is 'apgd', robviz only offers 'pgd'"),
        ("LOSS.NAME", "Dice", "LOSS.NAME is 'Dice', robviz only offers 'CrossEntropy'"),
        ("LOSS.CLS_WEIGHTS", True, "LOSS.CLS_WEIGHTS is True, robviz only offers False"),
        ("OPTIMIZER.NAME", "lamb", "OPTIMIZER.NAME is 'lamb', which robviz does not offer; it has AdamW, SGD"),
        ("OPTIMIZER.LR", "fast", "expected OPTIMIZER.LR to be a number"),
        ("MODEL.BACKBONE", "MiT-B0", "MODEL.BACKBONE is 'MiT-B0', which robviz does not offer; it has ConvNeXt-T_CVST"),
        ("MODEL.NAME", "SegMenter", "MODEL.NAME is 'SegMenter', robviz only offers 'UperNet"),
        (
            "DATASET.NAME",
            "cityscapes",
            "'cityscapes', which robviz does not offer; it has pascalaug, pascalvoc, ADE20K",
        ),
        ("DATASET.N_CLS", 20, "DATASET.N_CLS is 20, robviz only offers 21"),
        ("TRAIN.IMAGE_SIZE", [64, 64], r"TRAIN.IMAGE_SIZE is \[64, 64\], robviz only offers \[473, 473\]"),
        ("TRAIN.EPOCHS", "many", "TRAIN.EPOCHS is 'many', expected a whole number"),
    ],
)
def test_what_is_not_offered_is_told_in_one_sentence(key, value, message, tmp_path):
    values = copy.deepcopy(FILES["pascalvoc_convnext_rob_cvst"])
    section, name = key.split(".")
    values[section][name] = value
    with pytest.raises(ValueError, match=f"file.yaml: .*{message}"):
        official.training(written(tmp_path, values))


def test_what_is_missing_or_no_yaml_is_told_in_one_sentence(tmp_path):
    values = copy.deepcopy(FILES["pascalvoc_convnext_cvst"])
    del values["SCHEDULER"]["POWER"]
    with pytest.raises(ValueError, match=r"file.yaml lacks SCHEDULER.POWER; expected the keys of the official"):
        official.training(written(tmp_path, values))
    (tmp_path / "broken.yaml").write_text("TRAIN: [")
    with pytest.raises(ValueError, match=r"broken.yaml is not a configuration: while parsing"):
        official.training(tmp_path / "broken.yaml")
    with pytest.raises(ValueError, match=r"absent.yaml is not a configuration: .*No such file"):
        official.training(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match=r"EVAL.MODEL_PATH is empty; write the path of the checkpoint there"):
        official.evaluation(written(tmp_path, values))


@pytest.mark.slow
def test_the_command_evaluates_what_a_configuration_names(tmp_path, monkeypatch):
    """The model of its EVAL section on a VOC of one image, whose path it gives, too."""
    voc, values = tmp_path / "VOC2012", copy.deepcopy(FILES["pascalvoc_convnext_cvst"])
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(voc / "JPEGImages" / "a.jpg")
    Image.fromarray(np.ones((60, 60), np.uint8)).save(voc / "SegmentationClass" / "a.png")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    model = build("upernet-convnext-t-cvst", 21)
    torch.save(model.state_dict(), tmp_path / "trained.pth")
    values["EVAL"]["MODEL_PATH"], values["DATASET"]["ROOT"] = str(tmp_path / "trained.pth"), str(tmp_path)
    calls = []
    monkeypatch.setattr("robviz.sea.evaluate", lambda *arguments, **options: calls.append((arguments, options)) or Done)
    cli.main(["evaluate", "--config", str(written(tmp_path, values)), "--eps", "8"])
    (((evaluated, dataset, eps, _), options),) = calls
    assert evaluated.card.name == "trained"
    assert not evaluated.training
    assert all(value.equal(evaluated.state_dict()[key]) for key, value in model.state_dict().items())
    assert (dataset.name, dataset.split, len(dataset), eps, options["batch_size"]) == ("voc", "val", 1, 8 / 255, 32)


class Done:
    doubts = ()

    def to_markdown():
        return ""


def test_the_command_trains_what_a_configuration_says(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("robviz.finetune.run", lambda *arguments, **options: calls.append((arguments, options)))
    path = written(tmp_path, FILES["pascalvoc_convnext_rob_cvst"], "mine")
    cli.main(["finetune", "--config", str(path), "--set", "epochs=1", "initial=null"])
    (((recipe, out), options),) = calls
    assert (recipe.name, recipe.epochs, recipe.initial) == ("mine", 1, None)
    assert (out, options["root"]) == ("PATH-TO-SAVE_DIR", "location")
