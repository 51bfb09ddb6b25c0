"""Drawings in the style of the training pictures: paper and ink, size, centre, width of the pen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inputs_read import read, save
from pen import draw
from PIL import Image

from rnn_tf import Run
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.data.drawing import Style, find_style, redraw
from rnn_tf.data.profile import DataProfile, measure
from rnn_tf.predict import classifier


@pytest.fixture(scope="module")
def profile(mnist: SequenceData) -> DataProfile:
    return measure(mnist)


@pytest.fixture(scope="module")
def style(profile: DataProfile) -> Style:
    assert profile.style is not None
    return profile.style


def drawn(picture: Image.Image, style: Style, shape: tuple[int, int] = (28, 28)) -> np.ndarray:
    found = redraw(picture, style, shape)
    assert found is not None
    return found[0]


# --- what the style is ---
def test_the_style_of_mnist_is_what_its_makers_say(style: Style) -> None:
    """White on black, in a box of 20x20, its centre of mass in the centre of 28x28."""
    assert (style.paper, style.ink, style.side) == (0, 255, 20)
    assert (style.centre_y, style.centre_x) == (14, 14)
    assert 1.5 < style.pen < 2.5


def test_almost_all_digits_are_in_that_style_already(style: Style, mnist: SequenceData) -> None:
    assert np.mean([style.fits(x.astype(np.float32)) for x in mnist.test.x[:2000]]) > 0.98


def test_other_pictures_are_not(style: Style, mnist: SequenceData) -> None:
    digit = mnist.test.x[0].astype(np.float32)
    for other in (255 - digit, np.roll(digit, 3, 0), digit * 0, digit[::-1] + 100):
        assert not style.fits(other)


def test_pictures_without_a_common_paper_have_no_style() -> None:
    random = np.random.default_rng(0)
    assert find_style(random.integers(0, 256, (50, 28, 28), np.uint8)) is None
    light_and_dark = np.array([np.full((9, 9), 255 * (i % 2), np.uint8) for i in range(50)])
    assert find_style(light_and_dark) is None
    assert find_style(np.zeros((50, 9, 9), np.uint8)) is None


def test_black_on_white_is_a_style_too(mnist: SequenceData) -> None:
    found = find_style(255 - mnist.train.x[:100])
    assert found is not None
    assert (found.paper, found.ink, found.side) == (255, 0, 20)
    picture = drawn(draw(3, paper="navy", ink="yellow"), found)
    assert picture[0, 0] == 255
    assert picture.min() == 0


def test_drawings_at_any_place_have_paper_and_ink_but_no_centre(mnist: SequenceData) -> None:
    random = np.random.default_rng(0)
    x = np.zeros((60, 48, 48), np.uint8)
    for i, digit in enumerate(mnist.train.x[:60]):
        y, left = random.integers(0, 20, 2)
        x[i, y : y + 28, left : left + 28] = digit
    found = find_style(x)
    assert found is not None
    assert (found.paper, found.ink, found.side) == (0, 255, 0)
    # The sheet is kept whole, with its aspect, and only paper and ink become those of training.
    picture, notes = redraw(draw(0, size=(400, 200)), found, (48, 48))  # type: ignore[misc]
    rows, columns = np.nonzero(picture > 128)
    assert rows.min() > 12
    assert rows.max() < 36
    assert columns.max() < 24  # the digit is in the left half of a wide sheet
    assert notes[-1] == "scaled from 400x200 to 48x48, its aspect kept"


# --- what is done to a drawing ---
@pytest.mark.parametrize("digit", range(10))
def test_a_drawing_gets_the_size_and_the_centre(digit: int, style: Style) -> None:
    picture = drawn(draw(digit, size=(500, 300), box=(0.9, 0.05, 0.5)), style)
    assert picture.dtype == np.float32
    assert picture.shape == (28, 28)
    assert picture.min() == 0
    assert picture.max() == 255
    assert style.fits(picture)
    ink = np.argwhere(picture > 25)
    assert max(np.ptp(ink, axis=0)) + 1 in (19, 20)


def test_a_digit_of_mnist_survives_paper_ink_scale_and_place(
    style: Style, mnist: SequenceData
) -> None:
    alike = []
    for digit in mnist.test.x[:50]:
        large = Image.fromarray(255 - digit).resize((196, 196), Image.Resampling.BICUBIC)
        sheet = Image.new("L", (700, 400), 255)
        sheet.paste(large, (400, 17))
        again = drawn(sheet.convert("RGB"), style)
        alike.append(np.corrcoef(again.ravel(), digit.ravel())[0, 1])
    # Not equal: strokes a pixel or two wide come to lie half a pixel beside, and a whole one where
    # the centre of mass is rounded the other way.
    assert np.min(alike) > 0.6
    assert np.mean(alike) > 0.9


def test_colours_do_not_matter(style: Style) -> None:
    expected = drawn(draw(5), style)
    for paper, ink in (("black", "white"), ("#707070", "#202020"), ("white", "yellow"),
                       ("#204020", "#f0e0e0"), ("red", "blue")):  # fmt: skip
        picture = drawn(draw(5, paper=paper, ink=ink), style)
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.98, (paper, ink)


def test_light_from_one_side_is_not_ink(style: Style) -> None:
    pixels = np.asarray(draw(5, ink="#404040"), np.float32)
    shade = np.linspace(1, 0.6, 280)[None, :, None]
    lit = Image.fromarray((pixels * shade).astype(np.uint8))
    expected = drawn(draw(5), style)
    assert np.corrcoef(drawn(lit, style).ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(("pen", "thickened"), [(0.01, True), (0.03, True), (0.1, False)])
def test_a_thin_pen_is_thickened(pen: float, thickened: bool, style: Style) -> None:
    picture, notes = redraw(draw(3, pen=pen), style, (28, 28))  # type: ignore[misc]
    assert ("thin strokes thickened" in notes) == thickened
    # Neither faint nor blotted: about as much ink as a three of MNIST has, 50 to 200 pixels.
    assert 50 < picture.sum() / 255 < 200


@pytest.mark.parametrize("ink", ["white", "black", "#3060c0"])
def test_ink_on_nothing(ink: str, style: Style) -> None:
    picture = drawn(draw(2, mode="RGBA", paper=(0, 0, 0, 0), ink=ink), style)
    expected = drawn(draw(2), style)
    assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_sheet_with_transparent_margins_is_a_sheet(style: Style) -> None:
    sheet = Image.new("RGBA", (500, 400), (0, 0, 0, 0))
    sheet.paste(draw(2), (100, 60))
    expected = drawn(draw(2), style)
    np.testing.assert_array_equal(drawn(sheet, style), expected)


def test_a_bar_that_fills_its_box_is_a_drawing_not_a_sheet(style: Style) -> None:
    bar = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    bar.paste((0, 0, 0, 255), (140, 50, 170, 250))
    picture = drawn(bar, style)
    assert 20 * 2 < (picture > 128).sum() < 20 * 5


def test_an_empty_sheet_is_empty(style: Style) -> None:
    for paper in ("white", "#808080", "black"):
        picture, notes = redraw(Image.new("RGB", (90, 90), paper), style, (28, 28))  # type: ignore[misc]
        assert not picture.any()
        assert notes == ["nothing is drawn on it"]


def test_what_is_no_drawing_is_left_alone(style: Style) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    assert redraw(Image.fromarray(noise), style, (28, 28)) is None


# --- twenty pictures, as people have them ---
def grained(picture: Image.Image) -> Image.Image:
    """As a camera sees it: grain, and less light at the right."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    light = np.linspace(1, 0.7, pixels.shape[1])[None, :, None]
    grain = np.random.default_rng(0).normal(0, 4, pixels.shape)
    return Image.fromarray((pixels * light + grain).clip(0, 255).astype(np.uint8))


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


CLEAR = (0, 0, 0, 0)
TWENTY: dict[str, Image.Image] = {
    "0 dark on grey.png": draw(0, paper="#6e6e6e", ink="#1e1e1e"),
    "1 white on clear.png": draw(1, mode="RGBA", paper=CLEAR, ink="white"),
    "2 black on clear.png": draw(2, mode="RGBA", paper=CLEAR, ink="black"),
    "3 small.png": draw(3, box=(0.45, 0.4, 0.12)),
    "4 in a corner.png": draw(4, box=(0.68, 0.03, 0.3)),
    "5 thick.png": draw(5, pen=0.2),
    "6 thin.png": draw(6, pen=0.025),
    "7 blue ink.png": draw(7, ink="#2a3fb0"),
    "8 yellow on white.png": draw(8, ink="#f5e050"),
    "9 chalk.png": draw(9, paper="#1d3a2c", ink="#e8e8e0"),
    "0 poor.jpg": draw(0, paper="#e8e4da", ink="#303a5a"),
    "1 wide sheet.png": draw(1, size=(700, 250), box=(1.7, 0.2, 0.6)),
    "2 large sheet.png": draw(2, size=(1500, 1500), box=(0.1, 0.75, 0.2)),
    "3 sixteen bits.png": deep(draw(3)),
    "4 photo.jpg": grained(draw(4, paper="#d8d4c8", ink="#26262e")),
    "5 palette.png": draw(5, paper="#ffe", ink="#800").convert("P"),
    "6 one bit.png": draw(6, size=(200, 200)).convert("1"),
    "7 tiny sheet.png": draw(7, size=(40, 32), pen=0.12),
    "8 high sheet.png": draw(8, size=(150, 600), box=(0.2, 2.9, 0.6)),
    "9 grey and clear.png": draw(9, paper="#f0f0f0", ink="#505050").convert("LA"),
}


def test_twenty_pictures_are_read(run: Run, spec: SequenceSpec, tmp_path: Path) -> None:
    """By the default model after one epoch, as the tests train it."""
    classify = classifier(run)
    right = []
    for name, picture in TWENTY.items():
        path = save(picture, tmp_path / name, **({"quality": 30} if "poor" in name else {}))
        if classify(read(path, spec, run.profile).x).argmax() == int(name[0]):
            right.append(name)
    assert len(right) >= 18, set(TWENTY) - set(right)


def test_data_of_pictures_in_colour_have_no_style() -> None:
    x = np.zeros((20, 4, 15), np.uint8)
    spec = SequenceSpec(timesteps=4, features=15, labels=("a", "b"), channels=3)
    split = Split(x, np.zeros(20, np.int32))
    assert measure(SequenceData(spec, split, split, split)).style is None
