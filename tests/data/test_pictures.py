"""Pictures as sequences: any kind of file, and what is drawn on it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from inputs_read import read, save
from PIL import Image

from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError

COLOUR = SequenceSpec(timesteps=4, features=15, labels=("a", "b"), channels=3)
ALPHA = SequenceSpec(timesteps=4, features=20, labels=("a", "b"), channels=4)


def test_a_picture_that_fits_is_taken_as_it_is(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    sequences = read(save(Image.fromarray(digit), tmp_path / "7.png"), spec)
    assert sequences.x.shape == (1, 28, 28)
    assert sequences.x.dtype == np.float32
    np.testing.assert_array_equal(sequences.x[0], digit)
    assert sequences.notes == []


def test_a_suffix_may_be_in_capitals(digit: np.ndarray, spec: SequenceSpec, tmp_path: Path) -> None:
    path = save(Image.fromarray(digit), tmp_path / "7.PNG", format="PNG")
    np.testing.assert_array_equal(read(path, spec).x[0], digit)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_any_colour_mode_is_the_same_grey(
    mode: str, digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.fromarray(digit).convert(mode), tmp_path / "7.png")
    sequences = read(path, spec)
    # Grey from RGB is a weighted sum, rounded to whole levels.
    np.testing.assert_allclose(sequences.x[0], digit, atol=1)
    colours = {"P": "RGB"}.get(mode, mode)  # a palette is no more than names for colours
    assert sequences.notes == [f"converted from {colours} to L"]


def test_sixteen_bits_a_pixel_are_scaled_not_cut_off(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    deep = digit.astype(np.uint16) * 257  # 65,535 is white
    path = save(Image.fromarray(deep), tmp_path / "7.png")
    np.testing.assert_allclose(read(path, spec).x[0], digit, atol=1)


def test_black_and_white_are_the_ends_of_the_scale(spec: SequenceSpec, tmp_path: Path) -> None:
    picture = Image.new("1", (28, 28))
    picture.putpixel((3, 5), 1)
    expected = np.zeros((28, 28))
    expected[5, 3] = 255
    np.testing.assert_array_equal(read(save(picture, tmp_path / "dot.png"), spec).x[0], expected)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_nearly_the_same(
    suffix: str, digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.fromarray(digit), tmp_path / f"7{suffix}", quality=100)
    # JPEG is lossy, at its best quality by a few levels of 255.
    np.testing.assert_allclose(read(path, spec).x[0], digit, atol=4)


def test_another_size_is_resized_and_said(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    large = Image.fromarray(digit).resize((280, 140))
    sequences = read(save(large, tmp_path / "7.png"), spec)
    assert sequences.notes == ["resized from 280x140 to 28x28"]
    # There and back again through interpolation: the strokes stay where they are.
    assert np.corrcoef(sequences.x[0].ravel(), digit.ravel())[0, 1] > 0.95


def ink_on_nothing(digit: np.ndarray) -> Image.Image:
    """Black ink on a transparent ground, as drawing programs save it: all the colour is black."""
    picture = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    picture.putalpha(Image.fromarray(digit))
    return picture


def test_what_is_transparent_counts_as_white_paper(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(ink_on_nothing(digit), tmp_path / "7.png")
    np.testing.assert_allclose(read(path, spec).x[0], 255.0 - digit, atol=1)
    np.testing.assert_allclose(read(path, spec, invert=True).x[0], digit, atol=1)


@pytest.mark.parametrize("mode", ["LA", "P", "RGB", "L"])
def test_transparency_in_any_form_counts_as_white_paper(
    mode: str, spec: SequenceSpec, tmp_path: Path
) -> None:
    # A grey bar on a ground that is black, and marked as transparent.
    picture = Image.new("L", (28, 28), 0)
    picture.paste(100, (10, 0, 18, 28))
    expected = np.where(np.asarray(picture) == 0, 255, 100)
    path = tmp_path / "bar.png"
    if mode == "LA":
        picture.putalpha(picture.point(lambda level: 255 if level else 0))
        picture.save(path)
    elif mode == "P":
        # Two colours: 0 is black and transparent, 1 is grey.
        indexed = picture.point(lambda level: 1 if level else 0)
        indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
        indexed.putpalette([0, 0, 0, 100, 100, 100])
        indexed.save(path, transparency=0)
    else:
        picture.convert(mode).save(path, transparency=(0, 0, 0) if mode == "RGB" else 0)
    np.testing.assert_allclose(read(path, spec).x[0], expected, atol=1)


def test_invert_turns_light_into_dark(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.fromarray(255 - digit), tmp_path / "7.png")
    light, inverted = read(path, spec), read(path, spec, invert=True)
    assert light.notes == ["mostly light: if it is dark on light, add --invert"]
    assert inverted.notes == ["inverted"]
    np.testing.assert_array_equal(inverted.x[0], digit)


def test_colours_stay_where_the_model_knows_them(tmp_path: Path) -> None:
    colours = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    path = save(Image.fromarray(colours), tmp_path / "colours.png")
    # A time step is a row: the colours of its pixels, one after the other.
    np.testing.assert_array_equal(read(path, COLOUR).x[0], colours.reshape(4, 15))


def test_transparency_stays_where_the_model_knows_it(tmp_path: Path) -> None:
    colours = np.arange(80, dtype=np.uint8).reshape(4, 5, 4)
    path = save(Image.fromarray(colours), tmp_path / "colours.png")
    np.testing.assert_array_equal(read(path, ALPHA).x[0], colours.reshape(4, 20))


def test_transparency_counts_as_white_paper_in_colour_too(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (5, 4), (0, 0, 0, 0)), tmp_path / "nothing.png")
    np.testing.assert_array_equal(read(path, COLOUR).x, np.full((1, 4, 15), 255))


def png(width: int, height: int) -> bytes:
    """A small file that says it is a picture of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    magic = b"\x89PNG\r\n\x1a\n"
    return magic + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 10_000), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_refused(
    width: int, height: int, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height))
    with pytest.raises(InputError, match=r"bomb\.png"):
        read(path, spec)


def test_sequences_that_are_no_picture_are_not_read_from_one(tmp_path: Path) -> None:
    waves = SequenceSpec(timesteps=12, features=2, labels=("a", "b", "c"))
    path = save(Image.new("L", (2, 12)), tmp_path / "wave.png")
    with pytest.raises(InputError, match=r"wave\.png"):
        read(path, waves)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_named(
    share: float, digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.fromarray(digit), tmp_path / "7.png")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"^not a whole picture: .*7\.png"):
        read(path, spec)


# --- large pictures ---
# Prints by how many bytes the peak memory of the process grows while a picture is read.
PEAK = """
import pathlib, sys
from export.benchmark import peak_bytes
from rnn_tf.data import SequenceSpec
from rnn_tf.data.inputs import Inputs
spec = SequenceSpec(timesteps=28, features=28, labels=("a", "b"), channels=1)
before = peak_bytes()
(block,) = Inputs([pathlib.Path(sys.argv[1])], spec)
print(peak_bytes() - before)
"""


def test_a_large_jpeg_is_unpacked_small(spec: SequenceSpec, tmp_path: Path) -> None:
    """81 megapixels are 81 MB; at an eighth of the size they are 1.3 MB."""
    picture = Image.new("L", (9000, 9000), 255)
    picture.paste(0, (4000, 2000, 4800, 7000))
    path = save(picture, tmp_path / "1.jpg")
    del picture
    assert read(path, spec).notes[0] == "reduced from 9000x9000 to 1125x1125 pixels"
    # In a process of its own: peak memory is that of a whole process.
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 40e6


@pytest.mark.parametrize(
    ("name", "options"), [("1.png", {}), ("1.jpg", {"progressive": True})], ids=["png", "jpeg"]
)
def test_what_cannot_be_unpacked_small_is_refused_by_its_header(
    name: str, options: dict[str, object], spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.new("L", (9000, 9000), 255), tmp_path / name, **options)
    with pytest.raises(
        InputError, match=r"too large: .*; expected at most 67,108,864 pixels, got 9000x9000\. Save"
    ):
        read(path, spec)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_a_large_picture_in_any_mode_is_reduced(
    mode: str, spec: SequenceSpec, tmp_path: Path
) -> None:
    grey = Image.new("L", (4000, 3000), 255)
    grey.paste(0, (1000, 1000, 1400, 2000))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    path = save(deep if mode == "I;16" else grey.convert(mode), tmp_path / "1.png")
    found = read(path, spec)
    assert found.notes[0] == "reduced from 4000x3000 to 1334x1000 pixels"
    expected = np.asarray(grey.reduce(3).resize((28, 28), Image.Resampling.LANCZOS), np.float32)
    np.testing.assert_allclose(found.x[0], expected, atol=8)


def test_a_picture_is_upright_as_its_camera_says(spec: SequenceSpec, tmp_path: Path) -> None:
    for size in (56, 5600):  # also when it is reduced
        picture = Image.new("L", (size, size), 0)
        picture.paste(255, (0, 0, size, size // 4))  # a bar at the top
        exif = Image.Exif()
        exif[0x0112] = 6  # turn it clockwise by 90 degrees to see it upright
        found = read(save(picture, tmp_path / f"{size}.jpg", exif=exif), spec)
        assert found.x[0, :, -3:].min() > 200
        assert found.x[0, :, :14].max() < 50


def test_a_line_of_pixels_is_a_picture_too(spec: SequenceSpec, tmp_path: Path) -> None:
    path = save(Image.new("L", (9000, 1), 128), tmp_path / "line.png")
    np.testing.assert_allclose(read(path, spec).x, 128)
