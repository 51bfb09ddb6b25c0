"""A picture file as one sequence: its rows are the time steps."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rnn_tf.data.drawing import Style, is_transparent, lay_on_paper, redraw
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name of a colour mode, by channels
# Pixels that are unpacked at most, four bytes each: a page of A4 at 600 dots an inch is half of it.
# A JPEG file may have more, as it can be unpacked at an eighth of its size.
MOST_PIXELS = 1 << 26
# A larger picture is reduced to about this many pixels a side before anything is done with it.
WORKING_SIDE = 1024
# A picture whose mean is above this is mostly light. Of 255.
LIGHT = 127.5


def read_picture(
    path: Path, spec: SequenceSpec, style: Style | None, *, as_is: bool, invert: bool
) -> tuple[np.ndarray, list[str]]:
    """A PNG or JPEG as a raw sequence, float32 `(timesteps, features)`, and what was done to it.

    With a `style`, what is drawn is brought into the form of the training pictures, unless `as_is`.
    `invert` turns light dark before. Raises `InputError` when it is no whole picture, or too large.
    """
    picture, notes = _open(path)
    picture = _in_eight_bits(picture)
    size = (spec.features // spec.channels, spec.longest)  # (width, height): a row is a step
    if style is not None and not as_is:
        x, more = _in_style(picture, style, size, invert)
        return x, notes + more
    picture, more = _convert(picture, MODES[spec.channels])
    x, resized = _to_size(picture, size)
    notes += more + resized
    if invert:
        x = 255 - x
        notes.append("inverted")
    elif style is None and x.mean() > LIGHT:
        notes.append("mostly light: if it is dark on light, add --invert")
    return x.reshape(spec.longest, spec.features), notes


def _in_style(
    picture: Image.Image, style: Style, size: tuple[int, int], invert: bool
) -> tuple[np.ndarray, list[str]]:
    inverted = ["inverted"] if invert else []
    if picture.size == size and not is_transparent(picture):
        grey, notes = _convert(picture, "L")
        x = np.asarray(grey, np.float32)
        x = 255 - x if invert else x
        if style.fits(x):
            return x, notes + inverted
    colours = picture.convert("RGBA" if is_transparent(picture) else "RGB")
    redrawn = redraw(_inverted(colours) if invert else colours, style, (size[1], size[0]))
    if redrawn is not None:
        x, notes = redrawn
        return x, inverted + notes
    grey, notes = _convert(picture, "L")
    x, more = _to_size(grey, size)
    no_paper = "no paper of one colour at its border, so its content is left as it is"
    return 255 - x if invert else x, [*notes, *more, *inverted, no_paper]


def _inverted(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return ImageOps.invert(picture)
    *colours, alpha = picture.split()
    return Image.merge("RGBA", [*map(ImageOps.invert, colours), alpha])


def _open(path: Path) -> tuple[Image.Image, list[str]]:
    """The picture, upright as its camera says, less than 2 x `WORKING_SIDE` large, and a note.

    Raises `InputError` when it is not one, or too large to unpack; its header says so.
    """
    try:
        with warnings.catch_warnings():
            # The bound below is ours, and lower.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                whole = _by(opened.size)
                if not opened.info.get("progressive"):  # those are unpacked whole in any case
                    opened.draft(opened.mode, (WORKING_SIDE, WORKING_SIDE))
                if opened.width * opened.height > MOST_PIXELS:
                    raise _too_large(path, whole)
                picture = _reduced(opened)
                small = _by(picture.size)
                notes = [] if small == whole else [f"reduced from {whole} to {small} pixels"]
                return ImageOps.exif_transpose(picture), notes
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"not a whole picture: {path}", expected="a PNG or JPEG") from error


def _too_large(path: Path, got: str) -> InputError:
    return InputError(
        f"the picture is too large: {path}",
        expected=f"at most {MOST_PIXELS:,} pixels",
        got=got,
        fix="Save it smaller.",
    )


def _reduced(picture: Image.Image) -> Image.Image:
    times = max(picture.size) // WORKING_SIDE
    if times < 2:
        picture.load()
        return picture
    if picture.has_transparency_data:  # a colour that stands for transparent would be mixed
        picture = picture.convert("RGBA")
    # No side becomes less than a pixel.
    by = (min(times, picture.width), min(times, picture.height))
    return _in_eight_bits(picture).reduce(by)


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """The picture with levels from 0 to 255 in modes that Pillow converts without loss."""
    if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("1", "CMYK", "YCbCr"):
        return picture.convert("L" if picture.mode == "1" else "RGB")
    if picture.mode == "P":
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture


def _convert(picture: Image.Image, mode: str) -> tuple[Image.Image, list[str]]:
    """The picture in a colour mode, and what had to be done for that."""
    notes: list[str] = []
    if mode != "RGBA" and is_transparent(picture):
        # What is transparent would otherwise count as whatever colour lies below it.
        picture, notes = lay_on_paper(picture.convert("RGBA"))
    if picture.mode != mode:
        notes.append(f"converted from {picture.mode} to {mode}")
        picture = picture.convert(mode)
    return picture, notes


def _to_size(picture: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The pixels `(height, width[, channels])` float32 at a size, and whether that changed it."""
    notes = []
    if picture.size != size:
        notes.append(f"resized from {_by(picture.size)} to {_by(size)}")
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture, np.float32), notes


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
