"""A folder of the user's own pictures: what is read, and one line that says how to mend what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refdiff.errors import BadRequest
from refdiff.training.data import FolderSet

RED, GREEN = (255, 0, 0), (0, 255, 0)


def picture(path: Path, colour: tuple, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    Image.new(mode, size, colour).save(path)
    return path


def as_levels(images: np.ndarray) -> np.ndarray:
    return np.round((images + 1.0) * 127.5).astype(int)


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "b.png", RED)
    picture(tmp_path / "a.png", GREEN)
    (tmp_path / "b.txt").write_text("  a Red square\n")
    (tmp_path / "a.txt").write_text("a green square, isn't it?")
    (tmp_path / "notes.md").write_text("not a picture")
    return tmp_path


def test_captions_beside_the_pictures(folder):
    pictures = FolderSet.open(folder, size=4)
    assert pictures.captions == ("a green square, isn't it?", "a Red square")
    assert (pictures.images.shape, pictures.images.dtype) == ((2, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(as_levels(pictures.images)[:, :, 1, 2], [GREEN, RED])
    assert pictures.words() == ["a", "green", "isn", "it", "red", "square", "t"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl"])
def test_captions_in_a_list(folder, name):
    lines = [{"file_name": "b.png", "text": "a crimson field "}, {"file_name": "a.png", "text": "grün", "more": 1}]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
    pictures = FolderSet.open(folder, size=4)
    assert pictures.captions == ("a crimson field", "grün")
    np.testing.assert_array_equal(as_levels(pictures.images)[:, :, 0, 0], [RED, GREEN])


def test_pictures_of_a_folder_below_may_be_listed(folder):
    (folder / "more").mkdir()
    picture(folder / "more" / "c.bmp", (0, 0, 255))
    lines = [{"file_name": name, "text": name} for name in ("a.png", "b.png", "more/c.bmp")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert FolderSet.open(folder, size=4).captions == ("a.png", "b.png", "more/c.bmp")


def test_a_batch_holds_pictures_with_their_own_captions(folder):
    pictures = FolderSet.open(folder, size=4)
    images, things, captions = pictures.batch(np.random.default_rng(0), 40)
    assert (images.shape, things.shape, things.dtype) == ((40, 3, 4, 4), (40, 4, 4), bool)
    assert things.all()
    assert set(captions) == set(pictures.captions)
    for image, caption in zip(as_levels(images), captions, strict=True):
        assert tuple(image[:, 0, 0]) == (RED if "Red" in caption else GREEN)
    assert captions == pictures.batch(np.random.default_rng(0), 40)[2] != pictures.batch(np.random.default_rng(1), 40)[2]


def only(tmp_path: Path) -> np.ndarray:
    """The one picture of a folder, as [H,W,3] levels."""
    (tmp_path / "x.txt").write_text("x")
    return as_levels(FolderSet.open(tmp_path, size=4).images)[0].transpose(1, 2, 0)


def test_pictures_are_cut_to_their_middle(tmp_path):
    image = Image.new("RGB", (24, 8), RED)
    image.paste(GREEN, (8, 0, 16, 8))
    image.save(tmp_path / "x.png")
    assert np.abs(only(tmp_path) - np.array(GREEN)).max() < 20  # the filter sees a little over the cut


def test_transparent_pixels_become_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 2))
    image.save(tmp_path / "x.png")
    levels = only(tmp_path)
    assert (levels[:2] == 255).all() and (levels[2:] == RED).all()


def test_pictures_are_turned_upright(tmp_path):
    image = Image.new("RGB", (8, 8), RED)
    image.paste(GREEN, (0, 0, 8, 4))
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    image.save(tmp_path / "x.png", exif=turned)
    levels = only(tmp_path)
    assert (levels[0] == RED).all() and (levels[3] == GREEN).all()


@pytest.mark.parametrize(("mode", "colour"), [("L", 200), ("P", 3), ("CMYK", (0, 255, 255, 0)), ("1", 1), ("LA", (90, 255))])
def test_any_kind_of_eight_bit_picture(mode, colour, tmp_path):
    picture(tmp_path / ("x.jpg" if mode == "CMYK" else "x.png"), colour, mode=mode)
    levels = only(tmp_path)
    expected = {"L": (200,) * 3, "CMYK": RED, "1": (255,) * 3, "LA": (90,) * 3}.get(mode)
    assert expected is None or np.abs(levels - np.array(expected)).max() <= 2


def listed(folder: Path, text: str) -> None:
    (folder / "metadata.jsonl").write_text(text)


BAD = {
    "no folder": (lambda f: None, "is not a folder of images"),
    "no caption": (lambda f: (f / "a.txt").unlink(), r"a\.png has no caption: write it in a\.txt beside it, or in meta"),
    "no picture": (lambda f: [(f / n).unlink() for n in ("a.png", "b.png")], r"holds no images \(\.png, \.jpg"),
    "a broken picture": (lambda f: (f / "a.png").write_bytes(b"GIF89a"), r"a\.png cannot be read as an image"),
    "an empty picture": (lambda f: (f / "a.png").write_bytes(b""), r"a\.png cannot be read as an image"),
    "half a picture": (
        lambda f: (f / "a.png").write_bytes((f / "a.png").read_bytes()[:50]), r"a\.png cannot be read as an image"
    ),
    "sixteen bits": (
        lambda f: Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(f / "a.png"), "more than 8 bits a channel: save it"
    ),
    "a caption in another code": (lambda f: (f / "a.txt").write_bytes(b"caf\xe9"), r"a\.txt cannot be read as UTF-8"),
    "two lists": (
        lambda f: [(f / n).write_text("") for n in ("metadata.jsonl", "captions.jsonl")],
        "holds both metadata.jsonl and captions.jsonl: keep one",
    ),
    "a forgotten picture": (
        lambda f: listed(f, '{"file_name": "a.png", "text": "x"}'), r"has no line for b\.png: add one, or move the image out"
    ),
    "no JSON": (lambda f: listed(f, '{"file_name": "a.png", "text": "x"}\n\nb.png: x'), r"a\.jsonl line 3 is not of the form"),
    "a line without text": (lambda f: listed(f, '{"file_name": "a.png"}'), "line 1 is not of the form"),
    "a line that is a number": (lambda f: listed(f, "3"), "line 1 is not of the form"),
    "a text that is a number": (lambda f: listed(f, '{"file_name": "a.png", "text": 3}'), "line 1: file_name and text must be"),
    "a picture that is not there": (
        lambda f: listed(f, '{"file_name": "z.png", "text": "x"}'), r"line 1 names z\.png, which is not a file in the folder"
    ),
    "a picture outside": (
        lambda f: listed(f, '{"file_name": "../x/a.png", "text": "x"}'), r"line 1 names \.\./x/a\.png, which is not a file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named(name, folder):
    spoil, message = BAD[name]
    spoil(folder)
    with pytest.raises(BadRequest, match=message) as raised:
        FolderSet.open(folder / "nowhere" if name == "no folder" else folder, size=4)
    assert "\n" not in str(raised.value)
