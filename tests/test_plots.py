"""Pictures of a run: each is opened again, and has something drawn on it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from rnn_tf import plots
from rnn_tf.errors import InputError
from rnn_tf.plots import plot_confusion, plot_curves, plot_reading

BLUE, RED = (0x4C, 0x78, 0xA8), (0xE4, 0x57, 0x56)


def pixels(path: Path) -> np.ndarray:
    """RGB `(height, width, 3)` of a whole, valid PNG."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=-1).sum())


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": i,
            "seconds": 1.0,
            "loss": 2.0 / i,
            "accuracy": 1 - 0.5 / i,
            "val_loss": 2.2 / i,
            "val_accuracy": 0.95 - 0.5 / i,
            "learning_rate": 0.01 / i,
        }
        for i in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_show_train_and_validation(epochs: int, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot_curves(history(epochs), epochs, path)
    picture = pixels(path)
    assert picture.shape[:2] == (396, 1210)  # 3.6 x 11 inches, 110 dots each
    assert count(picture, BLUE) > 20
    assert count(picture, RED) > 20
    # One panel each for loss, accuracy and learning rate: ink in every third.
    assert all((third < 128).any() for third in np.array_split(picture, 3, axis=1))


def test_curves_bear_a_loss_of_zero(tmp_path: Path) -> None:
    records = [record | {"loss": 0.0} for record in history(3)]
    plot_curves(records, 3, tmp_path / "curves.png")
    assert count(pixels(tmp_path / "curves.png"), RED) > 20


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 30])
def test_a_confusion_matrix_is_dark_where_the_examples_are(classes: int, tmp_path: Path) -> None:
    labels = tuple(f"{i}" for i in range(classes))
    path = tmp_path / "confusion.png"
    plot_confusion(np.eye(classes, dtype=np.int64) * 1234, labels, "all right", path)
    picture = pixels(path)
    side = min(12.0, 3 + 0.4 * classes)
    assert picture.shape[:2] == (int(side * 110), int((side + 1) * 110))
    full, empty = (8, 48, 107), (247, 251, 255)  # the two ends of Matplotlib's "Blues"
    # Each cell on the diagonal is of one colour, the others are of the other.
    assert count(picture, empty) > (classes - 1) * count(picture, full) / 2 > 0


def test_a_mistake_is_drawn_where_it_was_made(tmp_path: Path) -> None:
    right = np.array([[50, 0], [0, 50]])
    wrong = np.array([[50, 0], [10, 40]])
    plot_confusion(right, ("a", "b"), "title", tmp_path / "right.png")
    plot_confusion(wrong, ("a", "b"), "title", tmp_path / "wrong.png")
    change = (pixels(tmp_path / "right.png") != pixels(tmp_path / "wrong.png")).any(axis=-1)
    height, width = change.shape
    # The true class is the row: the mistake is at the lower left, and nothing changes above it.
    assert change[height // 2 : height * 3 // 4, width // 4 : width // 2].mean() > 0.1
    assert not change[height // 4 : height // 2 - 20, : width * 2 // 5].any()


@pytest.mark.parametrize("classes", [3, 30])
def test_long_labels_leave_room_for_the_matrix(classes: int, tmp_path: Path) -> None:
    labels = tuple(f"a rather long name of class {i}" for i in range(classes))
    path = tmp_path / "confusion.png"
    plot_confusion(np.ones((classes, classes), np.int64), labels, "by chance", path)
    # All cells hold the same share, so all of the matrix has one colour.
    rows, columns = np.nonzero((pixels(path) == pixels(path)[tuple(centre(path))]).all(axis=-1))
    assert np.ptp(rows) > 80
    assert np.ptp(columns) > 80


def centre(path: Path) -> tuple[int, int]:
    """A point between the middle of the matrix and the numbers in its cells."""
    with Image.open(path) as picture:
        return picture.height // 2 - 15, picture.width // 2 - 15


def test_classes_without_examples_are_drawn_empty(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    plot_confusion(np.array([[5, 0], [0, 0]]), ("seen", "unseen"), "title", path)
    assert count(pixels(path), (8, 48, 107)) > 1000


def test_labels_are_text_not_formulas(tmp_path: Path) -> None:
    labels = ("costs $5", "$5 to $6", r"$\frac$", "_x^", "100%")
    plot_confusion(np.eye(5, dtype=np.int64), labels, "title", tmp_path / "confusion.png")
    assert count(pixels(tmp_path / "confusion.png"), (8, 48, 107)) > 1000


@functools.cache
def short_labels(classes: int) -> int:
    """How much of the picture is dark when every label is a number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.png"
        labels = tuple(map(str, range(classes)))
        plot_confusion(np.eye(classes, dtype=np.int64), labels, "title", path)
        return count(pixels(path), (8, 48, 107))


SCRIPT_G = "\N{SCRIPT SMALL G}"
SIXTY = tuple(f"{i}, a label of about sixty characters that says what it means" for i in range(10))


@pytest.mark.parametrize(
    "labels",
    [
        ("零", "一", "二"), ("🙂", "🙁", "x"), ("ascii", "ünïcödé", "Ωмега"),
        (SCRIPT_G, "a", "b"), SIXTY,
        tuple(f"クラスの名前がとても長いときのラベル{i}" for i in range(3)), ("x" * 500, "b", "c"),
        ("line\nbreak", "tab\tulator", " "), ("", "a", "b"), tuple(str(i) * 40 for i in range(20)),
    ],
    ids=["CJK", "emoji", "accents", "script", "sixty", "long CJK", "500", "spaces", "empty", "20"],
)  # fmt: skip
def test_any_label_leaves_the_picture_whole(labels: tuple[str, ...], tmp_path: Path) -> None:
    """Warnings are errors in tests: a missing glyph, and axes that have no room, would be one."""
    classes = len(labels)
    plot_confusion(np.eye(classes, dtype=np.int64), labels, "title", tmp_path / "confusion.png")
    # As large as with short labels: the matrix is not squeezed.
    ink = count(pixels(tmp_path / "confusion.png"), (8, 48, 107))
    assert ink > 0.5 * short_labels(classes)
    rows = np.random.default_rng(0).random((5, classes))
    rows /= rows.sum(axis=1, keepdims=True)
    plot_reading(np.zeros((5, 2)), np.ones((5, 3)), rows, labels, tmp_path / "reading.png")
    assert pixels(tmp_path / "reading.png").shape[1] == 1210


def test_a_long_label_is_written_below_not_cut_off(tmp_path: Path) -> None:
    names = plots._names(SIXTY)
    assert names.ticks == [str(i) for i in range(10)]
    assert names.key == [f"{i}: {label}" for i, label in enumerate(SIXTY)]


def test_labels_that_no_font_can_draw_are_numbered() -> None:
    names = plots._names(("零\U0010fffd", "a"))
    assert names.ticks == ["0", "1"]
    assert names.key == [
        "Classes are numbered in the order of their labels: no font here has all of these."
    ]


def test_a_font_that_has_the_characters_is_found() -> None:
    """Matplotlib's own font lacks the script g, its STIX has it: as a system's has Japanese."""
    assert plots._families(frozenset("g")) == ["DejaVu Sans"]
    own, other = plots._families(frozenset("g" + SCRIPT_G))
    assert own == "DejaVu Sans"
    assert ord(SCRIPT_G) in plots._characters(font_manager.findfont(other))


def test_a_picture_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"^cannot write .*curves\.png"):
        plot_curves(history(2), 1, tmp_path / "file" / "curves.png")
