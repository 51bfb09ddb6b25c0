"""Tables and `.ts` files to classify: as training reads them, without their classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnn_tf.config import Source
from rnn_tf.data import SequenceSpec, load
from rnn_tf.data.inputs import Inputs

SPEC = SequenceSpec(None, 2, ("no", "yes"), longest=5, feature_names=("x", "y"))
UNNAMED = dataclasses.replace(SPEC, feature_names=())
# Two sequences, their rows mixed and, in time, backwards.
TABLE = """id,time,label,y,x
b,2,yes,40,4
a,1,no,20,2
b,1,yes,30,3
a,0,no,10,1
b,0,yes,50,5
"""
A, B = [[1, 10], [2, 20]], [[5, 50], [3, 30], [4, 40]]
FILES = Path(__file__).parent / "files"


def read(
    path: Path, spec: SequenceSpec = SPEC, source: Source | None = None
) -> tuple[dict[str, list[list[float]]], list[str]]:
    """Each sequence by the name that it is answered by, and what was said of the file."""
    said: list[str] = []
    found = {}
    for block in Inputs([path], spec, source=source or Source(), say=said.append):
        lengths = [spec.longest] * len(block.x) if block.lengths is None else block.lengths
        for name, x, length in zip(block.names, block.x, lengths, strict=True):
            assert not x[length:].any()
            found[name.removeprefix(str(path))] = x[:length].tolist()
    return found, [line.replace(f"{path}", "FILE") for line in said]


def written(tmp_path: Path, text: str, name: str = "steps.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("spec", [SPEC, UNNAMED])
def test_a_table_with_ids_holds_a_sequence_for_each(spec: SequenceSpec, tmp_path: Path) -> None:
    text = TABLE if spec.feature_names else TABLE.replace("y,x", "first,second")
    found, said = read(written(tmp_path, text), spec)
    if spec is UNNAMED:
        found = {name: [row[::-1] for row in rows] for name, rows in found.items()}
    assert (found, said) == ({"[a]": A, "[b]": B}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "time,x,y\n1,2,20\n0,1,10\n"),
        ("a.csv", "y,other,x\n10,word,1\n20,word,2\n"),
        ("a.csv", "1,10\n2,20\n"),
        ("a.tsv", "x\ty\n1\t10\n2\t20\n"),
        ("a.txt", "x;y\n1,0;10\n2,0;20\n"),
    ],
)  # fmt: skip
def test_a_table_without_ids_is_one_sequence(name: str, text: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, text, name)) == ({"": A}, [])


def test_a_parquet_table(tmp_path: Path) -> None:
    columns = {"id": ["a", "a"], "time": [0.0, 0.5], "x": [1, 2], "y": [10, 20]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ({"": A}, [])


def test_a_feature_with_the_usual_name_of_something_else_is_a_feature(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, feature_names=("step", "label"))
    path = written(tmp_path, "when,step,label\n1,2,20\n0,1,10\n")
    assert read(path, spec, Source(time="when")) == ({"": A}, [])


def test_a_ts_file_is_read_as_training_reads_it() -> None:
    path = FILES / "ts" / "JapaneseVowels_TEST.ts"
    data = load(str(path))
    found, said = read(path, data.spec)
    assert said == []
    assert list(found)[:2] == ["[0]", "[1]"]
    assert len(found) == len(data.test.x) == 370
    assert data.test.lengths is not None
    for x, length, one in zip(data.test.x, data.test.lengths, found.values(), strict=True):
        np.testing.assert_array_equal(np.array(one, np.float32), x[:length])


def test_what_training_does_with_gaps_and_long_recordings_is_done_here(tmp_path: Path) -> None:
    path = written(tmp_path, "x,y\n1,10\n,20\n3,30\n4,40\n5,50\n6,60\n7,70\n")
    found, said = read(path, source=Source(missing="interpolate", window=3, stride=2))
    rows = [[i, 10.0 * i] for i in range(1, 8)]
    assert said == []
    assert found == {
        ", window 0": rows[0:3], ", window 1": rows[2:5], ", window 2": rows[4:7],
    }  # fmt: skip
    assert read(path, source=Source(missing="zero", window=3))[0][", window 0"][1] == [0, 20]


def test_sequences_that_do_not_fit_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [
        f"{id},{step},1" for id, steps in (("p", 6), ("q", 5), ("r", 9)) for step in range(steps)
    ]
    path = written(tmp_path, "\n".join(["id,x,y", *rows, "s,nan,1"]))
    found, said = read(path)
    assert list(found) == ["[q]"]
    assert said == [
        "error: 2 of 4 sequences in FILE do not fit the model; expected 1 to 5 steps, "
        "got 6 in FILE[p], 9 in FILE[r]",
        "error: 1 of 4 sequences in FILE are not finite numbers; got NaN, or more than float32 "
        "can hold, in FILE[s]",
    ]
    fixed = dataclasses.replace(SPEC, timesteps=5)
    assert list(read(path, fixed)[0]) == ["[q]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,z\n1,2\n", "FILE: no column 'y', which the model reads; expected x, y, got x, z"),
        ("1,2,3\n4,5,6\n", "FILE does not fit the model; expected 2 features, got 3"),
        ("x,y\n1,word\n", "FILE, line 2, column 'y': not a number; expected a number, or nothing "
            "where it is missing, got 'word'. Correct it, or name the columns to use: --features."),
        ("time,x,y\n1,2,3\n1,4,5\n", "FILE, column 'time': the time 1 twice in one sequence; got "
            "line 2 and line 3. Are there several sequences? Say which column tells them apart: "
            "--id COLUMN."),
        ("x,y\n", "FILE: no rows below the names of the columns"),
        ("x,y", "FILE: no rows below the names of the columns"),
        ("", "FILE: an empty file"),
    ],
)  # fmt: skip
def test_a_bad_table_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, text)) == ({}, [f"error: {said}"])


def test_a_text_beside_pictures_is_no_table(spec: SequenceSpec, tmp_path: Path) -> None:
    np.save(tmp_path / "7.npy", np.zeros((28, 28)))
    (tmp_path / "notes.txt").write_text("drawn on a Sunday")
    found, said = read(tmp_path, spec)
    assert len(found) == 1
    assert said == ["FILE: 1 of 2 entries left out, not .png, .jpg, .jpeg, .npy, .npz"]
