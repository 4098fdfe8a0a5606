"""Pictures and masks are read as they are meant: metadata never prevents it, and no scale is guessed."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from robviz.datasets import load_dataset, validate
from robviz.datasets.custom import numbers
from robviz.files.decoding import decoded, without_remarks
from robviz.files.images import read_picture

RGB = Image.fromarray(np.random.default_rng(7).integers(0, 256, (48, 40, 3), np.uint8))


def packed_png(path, labels, bits):
    """A grey PNG of 1, 2 or 4 bits a pixel, as optimisers and labelling tools write them."""
    rows = b""
    for row in labels.astype(np.uint8):
        digits = np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]
        rows += b"\0" + np.packbits(digits.ravel()).tobytes()

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder of one's own, by the card's text and the picture's and mask's arrays."""

    def make(picture, mask, card="classes: [a, b, c]", suffix="png"):
        for name in ("pictures", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(
            tmp_path / f"pictures/one.{suffix}"
        )
        Image.fromarray(mask).save(tmp_path / "masks/one.png")
        (tmp_path / "dataset.yaml").write_text(
            f"{card}\nsplits: {{val: {{images: pictures, masks: masks}}}}\n", encoding="utf-8"
        )
        return tmp_path

    return make


MASK = np.arange(40 * 48).reshape(48, 40).astype(np.uint8) % 3


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("void", [(), (0,), (200,)])
def test_masks_of_fewer_bits_than_8_give_the_numbers_in_the_file(tmp_path, bits, void):
    labels = np.arange(6 * 11).reshape(6, 11) % 2**bits
    found = numbers(packed_png(tmp_path / "mask.png", labels, bits), void)
    assert (found == np.where(np.isin(labels, void), -1, labels)).all()


def test_a_mask_of_black_and_white_is_said_to_be_taken_as_void_where_void_is_255(tmp_path):
    path = packed_png(tmp_path / "mask.png", np.array([[0, 1], [1, 0]]), 1)
    with pytest.warns(UserWarning, match=r"mask.png is a mask of black and white, .* if it is class 1, save it with"):
        assert numbers(path, (255,)).tolist() == [[0, -1], [-1, 0]]


@pytest.mark.parametrize("bits", [2, 4])
def test_where_white_may_be_void_or_a_class_a_packed_mask_is_refused_with_its_bits(tmp_path, bits):
    path = packed_png(tmp_path / "mask.png", np.array([[0, 2**bits - 1]]), bits)
    with pytest.raises(ValueError, match=rf"mask.png is a grey mask of {bits} bits .* save it with 8 bits a pixel"):
        numbers(path, (255,))
    assert (numbers(packed_png(path, np.zeros((2, 2)), bits), (255,)) == 0).all()


def test_a_palette_mask_and_a_pgm_of_few_greys_give_their_numbers(tmp_path):
    labels = np.arange(12).reshape(3, 4).astype(np.uint8)
    image = Image.fromarray(labels).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255] * 8)
    image.save(tmp_path / "palette.png", bits=4)
    (tmp_path / "few.pgm").write_bytes(b"P5\n4 3\n11\n" + labels.tobytes())
    for name in ("palette.png", "few.pgm"):
        assert (numbers(tmp_path / name, (255,)) == labels).all()


def test_a_float_picture_is_taken_as_0_to_1(folder):
    ramp = np.linspace(0, 1, 48 * 40, dtype=np.float32).reshape(48, 40)
    there = folder(ramp, MASK, suffix="tif")
    np.testing.assert_allclose(load_dataset(there)[0].image[0], ramp, atol=0.51 / 255)
    assert np.asarray(read_picture(there / "pictures/one.tif")).max() == 255
    dim = folder(ramp * 0.25, MASK, suffix="tif")  # not stretched to its own maximum
    assert load_dataset(dim)[0].image.max().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("worst", [255.0, float("nan"), -0.5])
def test_floats_beyond_the_range_are_refused_by_name_with_what_to_do(folder, worst):
    picture = np.full((48, 40), 0.5, np.float32)
    picture[3, 4] = worst
    (problem,) = validate(load_dataset(folder(picture, MASK, suffix="tif")))
    assert "one.tif contains" in problem.reason
    assert "expected 0 .. 1; convert it to 8 bits, or declare `range: [black, white]`" in problem.reason


def test_a_declared_range_scales_floats_and_whole_numbers(folder):
    values = np.arange(48 * 40).reshape(48, 40)
    card = "classes: [a, b, c]\nrange: [0, 4095]"
    for picture in (values.astype(np.uint16), values.astype(np.float32), values.astype(np.int32)):
        there = folder(picture, MASK, card, suffix="tif")
        np.testing.assert_allclose(load_dataset(there)[0].image[2], values / 4095, atol=0.51 / 255)


def test_16_bits_are_scaled_by_their_type_even_where_the_picture_is_dark(folder):
    picture = np.full((48, 40), 200, np.uint16)  # below 256, which is near black of 65535
    assert load_dataset(folder(picture, MASK))[0].image.max().item() == pytest.approx(1 / 255)


def test_whole_numbers_of_32_bits_have_no_white_and_are_refused(folder):
    (problem,) = validate(load_dataset(folder(np.full((48, 40), 70000, np.int32), MASK, suffix="tif")))
    assert "one.tif contains whole numbers of 32 bits, 70000 .. 70000" in problem.reason
    assert "or declare `range: [black, white]` in the dataset's card" in problem.reason


@pytest.mark.parametrize("value", ["5", "[1, 1]", "[0, .nan]", "[a, b]", "[0, .inf]"])
def test_a_range_that_is_none_is_refused(folder, value):
    with pytest.raises(ValueError, match=r"expected range to be \[black, white\], such as \[0, 4095\], got"):
        load_dataset(folder(RGB, MASK, f"classes: [a, b, c]\nrange: {value}"))


BROKEN_EXIF = {
    "noise": b"Exif\0\0" + bytes(range(40)),
    "repr of bytes": b"b'Exif\\x00\\x00II*",
    "cut in an entry": b"Exif\0\0II*\0\x08\0\0\0\x04\0\x12\x01",
    "a text for the orientation": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x03\0\0\0up\0\0\0\0\0\0",
    "an orientation of 77": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x4d\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("block", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_a_broken_exif_block_leaves_the_picture_as_it_is_stored(folder, block, suffix):
    there = folder(RGB, MASK, suffix=suffix)
    path = there / f"pictures/one.{suffix}"
    RGB.save(path, exif=block)
    assert read_picture(path).size == (40, 48)
    assert validate(load_dataset(there)) == []


def remarks():
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "{}" * 2_000_000, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<x/>" * 1_000_000, zip=True)
    return info


def test_long_texts_and_profiles_do_not_hinder_a_png(folder):
    there = folder(RGB, MASK)
    RGB.save(there / "pictures/one.png", pnginfo=remarks(), icc_profile=bytes(3_000_000))
    Image.fromarray(MASK).save(there / "masks/one.png", pnginfo=remarks())
    sample = load_dataset(there)[0]
    assert (np.asarray(read_picture(there / "pictures/one.png")) == np.asarray(RGB)).all()
    assert (sample.labels.numpy() == MASK).all()
    assert len(without_remarks((there / "masks/one.png").read_bytes())) < 2000


def test_a_damaged_png_is_refused_by_name(folder):
    there = folder(RGB, MASK)
    path = there / "pictures/one.png"
    whole = path.read_bytes()
    for content, says in (
        (b"", "not a picture that can be read"),
        (whole[:900], "cut short or damaged"),
        (b"x", "not"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path} is .*{says}"):
            decoded(path, lambda image: image.load())
        with pytest.raises(ValueError, match=rf"^one.png is .*{says}"):
            read_picture(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"one\.png is missing"):
        read_picture(path)


@pytest.mark.parametrize("places", ["images: pictures, masks: masks", 'images: "pictures/*.png", masks: "masks/*.png"'])
def test_files_that_a_system_leaves_behind_are_no_pictures(folder, places):
    there = folder(RGB, MASK)
    (there / "dataset.yaml").write_text(f"classes: [a, b, c]\nsplits: {{val: {{{places}}}}}\n", encoding="utf-8")
    for name in ("._one.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".one.png"):
        (there / "pictures" / name).write_bytes(b"\0\5\x16\7")
    found = load_dataset(there)
    assert len(found) == 1
    assert validate(found) == []


def test_the_published_datasets_ignore_them_too(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "val" / part).mkdir(parents=True)
        for name in ("a.png", "._a.png"):
            (tmp_path / "val" / part / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "train/images").mkdir(parents=True)
    assert len(load_dataset("camvid", "val", tmp_path)) == 1
    for name in ("images", "annotations"):
        (tmp_path / name / "validation").mkdir(parents=True)
    for name in ("a.jpg", "._a.jpg"):
        (tmp_path / "images/validation" / name).write_bytes(b"\0\5\x16\7")
    assert len(load_dataset("ade20k", "val", tmp_path)) == 1


def test_void_among_the_numbers_of_the_classes_is_refused_and_first_says_where_they_begin(folder):
    mask = MASK  # 0 unlabelled, then the first and the second class
    with pytest.raises(
        ValueError, match=r"0 is void and the number of a class.*numbers 0 .. 2 in the masks; `first: 1` says"
    ):
        load_dataset(folder(RGB, mask, "classes: [wall, floor, sky]\nvoid: 0"))
    labels = load_dataset(folder(RGB, mask, "classes: [wall, floor, sky]\nvoid: 0\nfirst: 1"))[0].labels.numpy()
    assert (labels == mask.astype(int) - 1).all()
    assert (labels[mask == 0] == -1).all()


def test_a_number_before_the_first_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"masks/one.png contains 0: .* from 1 on, or of void; add `void: 0` to the card"
    ):
        load_dataset(folder(RGB, MASK, "classes: [wall, floor, sky]\nfirst: 1"))[0]
    for value in ("-1", "one", "1.5", "[1]"):
        with pytest.raises(ValueError, match="expected first to be the number of the first class"):
            load_dataset(folder(RGB, MASK, f"classes: [wall, floor, sky]\nfirst: {value}"))
