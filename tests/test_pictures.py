from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robviz.datasets import load_dataset
from robviz.files.images import (
    change_png_url,
    changed,
    largest_change,
    png_url,
    quantise,
    read_picture,
    to_bytes,
    to_tensor,
)
from robviz.notebook.widget import decode_url


def save(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.fixture
def gradient():
    return Image.fromarray(np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_becomes_rgb(tmp_path, gradient, mode):
    name = {"CMYK": "x.jpg", "YCbCr": "x.jpg", "F": "x.tiff"}.get(mode, "x.png")
    deep = {"I;16": np.full((40, 60), 65535, np.uint16), "F": np.ones((40, 60), np.float32)}
    image = Image.fromarray(deep[mode]) if mode in deep else gradient.convert(mode)
    read = read_picture(save(tmp_path, image, name))
    assert read.mode == "RGB"
    assert read.size == (60, 40)
    if mode in deep:
        assert np.asarray(read).min() == 255


def test_transparency_is_laid_on_white(tmp_path):
    assert np.asarray(read_picture(save(tmp_path, Image.new("RGBA", (40, 40), (255, 0, 0, 0))))).min() == 255


def test_exif_rotation_is_applied(tmp_path, gradient):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(save(tmp_path, gradient, "x.jpg", exif=exif)).size == (40, 60)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    path = save(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert read_picture(path).getpixel((5, 5)) == (255, 0, 0)  # red


def test_large_pictures_are_shrunk_and_small_ones_kept(tmp_path):
    assert read_picture(save(tmp_path, Image.new("RGB", (1000, 500)))).size == (256, 128)
    assert read_picture(save(tmp_path, Image.new("RGB", (4000, 50)))).size == (256, 32)


@pytest.mark.slow
def test_what_is_no_usable_picture_is_refused_in_one_sentence(tmp_path, gradient):
    whole = save(tmp_path, gradient, "whole.png").read_bytes()
    for name, content, says in [
        ("text.png", b"hello", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("short.png", whole[: len(whole) // 2], "cut short"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=says):
            read_picture(tmp_path / name)
    with pytest.raises(ValueError, match="only 1 x 1 pixels"):
        read_picture(save(tmp_path, Image.new("RGB", (1, 1))))
    with pytest.raises(ValueError, match=r"huge\.png has too many pixels .*shrink it first"):
        read_picture(save(tmp_path, Image.new("1", (20000, 20000)), "huge.png"))


@pytest.mark.parametrize("levels", [0, 0.25, 1, 3.75, 4])
def test_the_8_bit_picture_stays_within_the_budget(levels):
    image = to_tensor(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)))
    eps = levels / 255
    attacked = (image + eps * torch.randn_like(image).sign()).clamp(0, 1)
    picture = quantise(attacked, image, eps)
    assert largest_change(picture, to_bytes(image)) == int(levels)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([0, 4, 255]))
def test_a_picture_and_its_change_give_the_attacked_picture_again(seed, levels):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (5, 7, 3), np.uint8)
    change = generator.integers(-levels, levels + 1, image.shape)
    attacked = (image + change).clip(0, 255).astype(np.uint8)
    encoded = decode_url(change_png_url(image, attacked))
    assert np.array_equal(changed(image, encoded), attacked)


def test_the_change_takes_half_the_room_of_the_attacked_picture():
    image = to_bytes(load_dataset("photos", "photographs")[0].image)
    noise = np.random.default_rng(0).choice([-8, -3, 0, 3, 8], image.shape)
    attacked = (image + noise).clip(0, 255).astype(np.uint8)
    assert len(change_png_url(image, attacked)) < 0.5 * len(png_url(attacked))


def test_an_8_bit_picture_survives_the_round_trip():
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    assert np.array_equal(to_bytes(to_tensor(Image.fromarray(picture))), picture)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_the_8_bit_picture_stays_within_eps_and_is_the_closest_that_does(seed, eps, spread):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, 5, 6, generator=generator)
    attacked = (image + spread * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    found, original, wanted = (
        quantise(attacked, image, eps),
        to_bytes(image).astype(int),
        to_bytes(attacked).astype(int),
    )
    levels = int(np.floor(255 * eps + 1e-6))
    assert found.dtype == np.uint8
    assert largest_change(found, to_bytes(image)) <= levels
    closest = np.where(np.abs(wanted - original) <= levels, wanted, original + levels * np.sign(wanted - original))
    assert (found == closest).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 255))
def test_an_attack_in_whole_levels_loses_nothing_by_8_bits(seed, levels):
    generator = torch.Generator().manual_seed(seed)
    original = torch.randint(0, 256, (3, 5, 6), generator=generator)
    change = torch.randint(-levels, levels + 1, original.shape, generator=generator)
    attacked = (original + change).clamp(0, 255)
    found = quantise(attacked / 255, original / 255, levels / 255)
    assert (found == attacked.permute(1, 2, 0).numpy()).all()
