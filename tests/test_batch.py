"""Picture files, attacked into a folder."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from robviz.attacks import AttackSpec, predicted
from robviz.files.images import largest_change, to_tensor
from robviz.interactive.batch import attack_pictures, names_for, pictures_in, truth_for
from robviz.models import adapt
from robviz.types import InputError
from robviz.viewer.attacked import attacked_page
from tests.small import Bends

SPEC = AttackSpec(eps=16 / 255, steps=4)


@pytest.fixture
def model():
    return adapt(Bends(), ("sky", "road", "<car>", "bus"), mean=(0, 0, 0), std=(1, 1, 1), name="tiny")


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them larger than what is attacked, and something else."""
    for number, size in enumerate([(48, 40), (160, 80)]):
        levels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / f"picture{number}.png")
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def test_every_file_tells_the_truth_about_the_attack(model, folder):
    out = folder / "out"
    found = list(attack_pictures(model, pictures_in([folder]), SPEC, out, longer_side=80))
    assert [one.name for one in found] == ["picture0", "picture1"]
    for one in found:
        read = {name: np.array(Image.open(out / one.name / f"{name}.png")) for name in ("picture", "attacked")}
        masks = {name: np.array(Image.open(out / one.name / f"mask_{name}.png")) for name in ("clean", "attacked")}
        numbers = json.loads((out / one.name / "numbers.json").read_text())
        assert 0 < largest_change(read["picture"], read["attacked"]) == numbers["largest_change_255"] <= 16
        for picture, mask in (("picture", "clean"), ("attacked", "attacked")):
            seen = predicted(model, to_tensor(Image.fromarray(read[picture]))[None])[0]
            assert np.array_equal(masks[mask], seen.numpy())
        right = (masks["attacked"] == masks["clean"]).mean()
        assert numbers["attacked"]["accuracy"] == pytest.approx(right)
        assert numbers["compared_with"] == "the model's own mask of the unattacked picture"
    assert read["picture"].shape == (40, 80, 3)
    together = json.loads((out / "numbers.json").read_text())
    assert together["attack"]["eps"] == pytest.approx(16 / 255)
    assert together["pictures"]["picture1"] == numbers


def test_the_page_of_the_folder_holds_every_picture_the_worst_first(model, folder):
    found = list(attack_pictures(model, pictures_in([folder]), SPEC, folder / "out", longer_side=80))
    shared = attacked_page(folder / "out")
    assert (shared.shown, shared.total) == (2, 2)
    assert "<car>" not in shared.text
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', shared.text)[1])["data"]
    worst = min(found, key=lambda one: one.shown.scores_after.accuracy)
    assert payload["gallery"]["cards"][0]["title"] == worst.source.name
    broken = sum((one.shown.before != one.shown.after).sum() for one in found)
    assert sum(pixels for *_, pixels in payload["flips"]) == broken
    assert "--eps 16 --steps 4 --seed 0" in shared.text
    assert "--size 80 --out out" in shared.text


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("numbers.json", "{}", "is not what `robviz attack` writes"),
        (
            "numbers.json",
            '{"pictures": {"../picture0": {"attacked": {"accuracy": 0}}}, "classes": [], "attack": {}}',
            "names a picture outside of the folder",
        ),
        ("picture0/mask_clean.png", "no picture", "mask_clean.png"),
    ],
)
def test_a_folder_that_was_changed_gives_one_sentence(model, folder, file, content, says):
    list(attack_pictures(model, [folder / "picture0.png"], SPEC, folder / "out"))
    (folder / "out" / file).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        attacked_page(folder / "out")


def test_own_masks_are_the_ground_truth_and_void_never_counts(model, folder):
    masks = folder / "masks"
    masks.mkdir()
    image = to_tensor(Image.open(folder / "picture0.png"))
    wrong = (predicted(model, image[None])[0].numpy() + 1) % 4
    wrong[:, :20] = 255
    Image.fromarray(wrong.astype(np.uint8)).save(masks / "picture0.png")
    (found,) = attack_pictures(model, [folder / "picture0.png"], SPEC, folder / "out", masks=masks)
    assert found.has_truth
    assert found.shown.scores_before.accuracy == 0
    assert np.array(Image.open(folder / "out/picture0/mask_truth.png"))[:, :20].min() == 255


def test_a_mask_of_a_larger_picture_is_shrunk_with_it(tmp_path):
    labels = np.kron([[0, 1], [2, 255]], np.ones((20, 30))).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "street.png")
    found = truth_for(tmp_path / "elsewhere" / "street.jpg", tmp_path, (20, 30), 4)
    assert found.equal(torch.from_numpy(np.kron([[0, 1], [2, -1]], np.ones((10, 15)))).long())


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (None, "is missing; a mask has the picture's name"),
        (np.zeros((40, 40), np.uint8), "is 40 x 40, which is not the shape of street.jpg"),
        (np.full((20, 30), 7, np.uint8), "holds class 7, the model has 4 classes"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, array, says):
    if array is not None:
        Image.fromarray(array).save(tmp_path / "street.png")
    with pytest.raises(InputError, match=says):
        truth_for(tmp_path / "street.jpg", tmp_path, (20, 30), 4)


def test_pictures_of_one_name_get_folders_of_their_own(tmp_path):
    assert names_for([tmp_path / "a.png", tmp_path / "b" / "a.jpg", tmp_path / "c" / "a.png"]) == ["a", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("paths", "says"),
    [([], "nothing to attack"), (["none.png"], "there is no picture"), (["empty"], "does not contain a picture")],
)
def test_where_there_is_no_picture_one_sentence_says_so(tmp_path, paths, says):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says):
        pictures_in([tmp_path / path for path in paths])


@pytest.mark.slow
def test_the_command_attacks_and_compares(folder, capsys, monkeypatch):
    from robviz.cli import main

    main(["attack", str(folder / "picture0.png"), "--out", str(folder / "out"), "--steps", "1", "--eps", "2"])
    assert "picture0" in capsys.readouterr().out
    assert (folder / "out" / "index.html").is_file()
    with pytest.raises(SystemExit, match="the model has no class 'dragon'; choose from: background"):
        main(["attack", str(folder / "picture0.png"), "--out", str(folder / "out"), "--target", "dragon"])


def test_the_command_writes_a_leaderboard(tmp_path, capsys):
    from robviz.cli import main

    main(["leaderboard", "--out", str(tmp_path / "results.html"), "--no-published"])
    assert 'class="published"' not in (tmp_path / "results.html").read_text(encoding="utf-8")
