"""A folder of class folders: every file is a sequence, and nothing else is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_tf.config import Source
from rnn_tf.data import SequenceData, load
from rnn_tf.data.likely_mistakes import likely_mistakes
from rnn_tf.errors import InputError

SEQUENCES = {
    "walk/10": [[1, 4], [2, 5], [3, 6]],
    "run/2": [[7.5, 9], [8, 10]],
    "run/3": [[0, 1]],
}


def write(folder: Path, files: dict[str, Any], by: str = ",", suffix: str = ".csv") -> str:
    """A file for each sequence, or with the text that is given."""
    for name, rows in files.items():
        path = folder / name if "." in name else folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif path.suffix == ".npy":
            np.save(path, np.array(rows))
        else:
            path.write_text("".join(by.join(map(str, row)) + "\n" for row in rows))
    return str(folder)


def split(folder: Path) -> dict[str, Any]:
    return {
        f"{name}/{file}": rows
        for name in ("train", "valid", "test")
        for file, rows in SEQUENCES.items()
    }


def check(data: SequenceData) -> None:
    """That each split is SEQUENCES: in the order of the names of the files, as numbers."""
    assert data.spec.labels == ("run", "walk")
    for each in (data.train, data.valid, data.test):
        assert each.x.tolist() == [
            [[7.5, 9], [8, 10], [0, 0]], [[0, 1], [0, 0], [0, 0]], [[1, 4], [2, 5], [3, 6]],
        ]  # fmt: skip
        assert each.y.tolist() == [0, 0, 1]
        assert each.lengths is not None
        assert each.lengths.tolist() == [2, 1, 3]
        assert each.x.dtype == np.float32


@pytest.mark.parametrize(
    ("suffix", "by"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".txt", "  "), (".npy", "")]
)
def test_kinds_of_files(tmp_path: Path, suffix: str, by: str) -> None:
    data = load(write(tmp_path, split(tmp_path), by, suffix))
    check(data)
    assert data.spec.feature_names == ()


def test_names_above_the_columns_and_a_time(tmp_path: Path) -> None:
    """As devices write them: a time stamp first, here in another order than that of the rows."""
    files = {
        name: [["timestamp", "ax", "ay"], *reversed([[10 * i, *row] for i, row in enumerate(rows)])]
        for name, rows in split(tmp_path).items()
    }
    data = load(write(tmp_path, files))
    check(data)
    assert data.spec.feature_names == ("ax", "ay")
    assert data.notes == ("time: timestamp",)


def test_columns_by_name(tmp_path: Path) -> None:
    files = {
        name: [["tick", "noise", "ax", "ay"], *([i, 5, *row] for i, row in enumerate(rows))]
        for name, rows in split(tmp_path).items()
    }
    path = write(tmp_path, files)
    data = load(Source(path, time="tick", features=("ax", "ay")))
    check(data)
    with pytest.raises(InputError, match=r"--id means nothing in .*; got patient. Leave it out"):
        load(Source(path, id="patient"))


def test_one_feature(tmp_path: Path) -> None:
    both = ("train", "test")
    files: dict[str, Any] = {
        f"{split}/{name}/{i}": np.arange(3.0) + i for split in both for name in "ab" for i in (0, 1)
    }
    data = load(write(tmp_path, files, suffix=".npy"))
    assert (data.spec.timesteps, data.spec.features) == (3, 1)
    files = {
        f"{split}/{name}/{i}": [[i], [1 + i], [2 + i]]
        for split in both for name in "ab" for i in (0, 1)
    }  # fmt: skip
    again = load(write(tmp_path / "text", files))
    assert (again.spec.timesteps, again.spec.features) == (3, 1)
    np.testing.assert_array_equal(again.test.x, data.test.x)


def test_without_folders_of_splits_they_are_cut_if_they_may_be(tmp_path: Path) -> None:
    files = {f"{name}/{name}{i}": [[i, 0], [i, 1]] for name in ("a", "b") for i in range(10)}
    path = write(tmp_path, files)
    with pytest.raises(InputError, match=r"has no test split\. Give one, or .*--test-share 0\.2"):
        load(path)
    with pytest.warns(UserWarning, match="has no test split: 4 of its 20 training examples"):
        data = load(Source(path, test_share=0.2))
    assert [len(each.y) for each in (data.train, data.valid, data.test)] == [15, 1, 4]


def test_what_is_hidden_or_something_else_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, split(tmp_path))
    for other in ("train/.DS_Store", "train/walk/.hidden.csv", "train/walk/notes.md", "README.md"):
        (tmp_path / other).write_text("no sequence")
    (tmp_path / ".git").mkdir()
    check(load(path))


def test_a_class_in_one_split_only(tmp_path: Path) -> None:
    """It is a class: what that means for training is said by `likely_mistakes`."""
    path = write(tmp_path, {**split(tmp_path), "test/fly/1": [[1, 1]]})
    data = load(path)
    assert data.spec.labels == ("fly", "run", "walk")
    assert 0 not in data.train.y
    (said,) = [line for line in likely_mistakes(data) if "fly" in line]
    assert said == "no training example of 'fly', but 1 in test, which will all be wrong"


BAD = {
    "one class": (
        {"walk/1": [[1, 2]]},
        "{root}: too few classes; expected a sub-folder for each class, 2 or more, got walk",
    ),
    "no class": (
        {"a.csv": [[1, 2]]},
        "{root}: too few classes; expected a sub-folder for each class, 2 or more, got no "
        "sub-folder",
    ),
    "one class to train on": (
        {"train/walk/1": [[1, 2]], "test/walk/1": [[1, 2]], "test/run/1": [[1, 2]]},
        "{root}/train: too few classes; expected a sub-folder for each class, 2 or more, got walk",
    ),
    "an empty file": ({"walk/1": [], "run/1": [[1, 2]]}, "{root}/walk/1.csv: an empty file"),
    "an empty array": (
        {"walk/1.npy": np.zeros((0, 2)), "run/1": [[1, 2]]},
        "{root}/walk/1.npy: no time step; expected a row for each",
    ),
    "names only": (
        {"walk/1": [["ax", "ay"]], "run/1": [["ax", "ay"], [1, 2]]},
        "{root}/walk/1.csv: no time step; expected a row for each",
    ),
    "other numbers of columns": (
        {"run/1": [[1, 2]], "walk/2": [[1, 2, 3]]},
        "{root}/walk/2.csv has another number of columns than {root}/run/1.csv; expected 2, got 3",
    ),
    "other columns": (
        {"run/1": [["ax", "ay"], [1, 2]], "walk/2": [["ax", "az"], [1, 2]]},
        "{root}/walk/2.csv has other columns than {root}/run/1.csv; expected ax, ay, got ax, az",
    ),
    "an empty class": (
        {"walk/1": [[1, 2]], "run/notes.md": b""},
        "{root}/run: a class without a sequence; expected files of .csv, .tsv, .txt, .npy, got 1 "
        "others",
    ),
    "a text": (
        {"walk/1": [[1, 2], [1, "x"]], "run/1": [[1, 2]]},
        "{root}/walk/1.csv, line 2, column '2': not a number; expected a number, or nothing where "
        "it is missing, got 'x'. Correct it, or name the columns to use: --features.",
    ),
    "a value missing": (
        {"walk/1": [["ax", "ay"], [1, 2], ["", 3]], "run/1": [["ax", "ay"], [1, 2]]},
        "{root}/walk/1.csv, line 3, column 'ax': a value is missing. Add --missing interpolate, "
        "which draws a line between the values before and after it, or --missing zero.",
    ),
    "NaN in an array": (
        {"walk/1.npy": [[1, 2], [1, np.nan]], "run/1": [[1, 2]]},
        "{root}/walk/1.npy, step 2, column 2: a value is missing. Add --missing interpolate, which "
        "draws a line between the values before and after it, or --missing zero.",
    ),
    "a time twice": (
        {"walk/1": [["time", "ay"], [1, 2], [1, 3]], "run/1": [["time", "ay"], [1, 2]]},
        "{root}/walk/1.csv, column 'time': the time 1 twice in one sequence; got line 2 and line 3",
    ),
    "splits beside classes": (
        {"train/walk/1": [[1, 2]], "train/run/1": [[1, 2]], "fly/1": [[1, 2]]},
        "{root}: folders of splits beside others; expected train, and valid and test if any, got "
        "fly",
    ),
    "three axes": (
        {"walk/1.npy": np.zeros((2, 2, 2)), "run/1": [[1, 2]]},
        "{root}/walk/1.npy: not one sequence of numbers; expected shape (steps, features), got "
        "float64 of shape (2, 2, 2)",
    ),
    "objects": (
        {"walk/1.npy": np.array([{}, []], object), "run/1": [[1, 2]]},
        "{root}/walk/1.npy: not one sequence of numbers; expected shape (steps, features), got "
        "object of shape (2,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD.keys())
def test_bad_folders(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, files))
    assert str(caught.value) == message.format(root=tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"too few classes; .* got no sub-folder"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["file", "class", "split"])
def test_no_link_leads_out_of_the_folder(tmp_path: Path, kind: str) -> None:
    root, secret = tmp_path / "data", tmp_path / "secret"
    write(root, {f"train/{file}": rows for file, rows in SEQUENCES.items()})
    write(secret, {"fly/1": [[1, 2]]})
    if kind == "file":
        link = root / "train" / "walk" / "1.csv"
        link.symlink_to(secret / "fly" / "1.csv")
    elif kind == "class":
        (root / "train" / "fly").symlink_to(secret / "fly")
        link = root / "train" / "fly" / "1.csv"
    else:
        (root / "test").symlink_to(secret)
        link = root / "test" / "fly" / "1.csv"
    with pytest.raises(InputError) as caught:
        load(str(root))
    assert str(caught.value) == (
        f"{link}: a link out of the folder; expected a file in {root}. Put a copy of the "
        "file there."
    )


def test_links_within_the_folder_and_to_it_are_fine(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, split(root))
    moved = root / "train" / "walk" / "10.csv"
    moved.rename(root / "elsewhere.csv")
    moved.symlink_to(root / "elsewhere.csv")
    (tmp_path / "link").symlink_to(root)
    check(load(str(tmp_path / "link")))


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    poisoned = tmp_path / "poisoned"

    class Poison:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (poisoned,)

    array = np.empty((2, 2), object)
    array[...] = Poison()
    path = write(tmp_path / "data", {"walk/1.npy": array, "run/1": [[1, 2]]})
    with pytest.raises(InputError, match=r"walk/1\.npy: not one sequence of numbers"):
        load(path)
    assert not poisoned.exists()
