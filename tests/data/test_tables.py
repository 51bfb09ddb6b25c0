"""Long tables: read exactly however they are written; what is wrong is named by line and column."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from rnn_tf.config import Source
from rnn_tf.data import SequenceData, describe, load
from rnn_tf.errors import InputError

COLUMNS = ("id", "time", "label", "split", "x", "y")
# Two sequences of train, one of valid and of test; rows in no order.
ROWS: list[tuple[Any, ...]] = [
    (10, 0, "walk", "train", 1, 4),
    (2, 0, "run", "train", 7.5, 9),
    (10, 2, "walk", "train", 3, 6),
    (3, 0, "run", "test", -2, 0),
    (10, 1, "walk", "train", 2, 5),
    (4, 5, "walk", "valid", 1e3, 1),
    (2, 1, "run", "train", 8, 10),
]  # fmt: skip


def text(
    rows: list[tuple[Any, ...]] = ROWS,
    columns: tuple[str, ...] = COLUMNS,
    by: str = ",",
    decimal: str = ".",
) -> str:
    cells = [columns, *([str(cell).replace(".", decimal) for cell in row] for row in rows)]
    return "".join(by.join(row) + "\n" for row in cells)


def write(folder: Path, content: str | None = None, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text() if content is None else content)
    return str(path)


def check(data: SequenceData) -> None:
    """That this is what ROWS say."""
    assert data.spec.labels == ("run", "walk")
    assert data.spec.feature_names == ("x", "y")
    assert (data.spec.longest, data.spec.features, data.spec.varies) == (3, 2, True)
    # In the order of the ids, as numbers.
    assert data.train.x.tolist() == [[[7.5, 9], [8, 10], [0, 0]], [[1, 4], [2, 5], [3, 6]]]
    assert data.train.y.tolist() == [0, 1]
    assert data.train.lengths is not None
    assert data.train.lengths.tolist() == [2, 3]
    assert data.valid.x[:, 0].tolist() == [[1000, 1]]
    assert data.test.x[:, 0].tolist() == [[-2, 0]]
    assert [int(data.valid.y[0]), int(data.test.y[0])] == [1, 0]
    assert data.train.x.dtype == np.float32


def test_a_table(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    check(data)
    assert data.train.groups is None
    assert describe(data) == (
        "3 sequences of 1 to 3 steps, 2 features, 2 classes: run (1), walk (2); 1 to test\n"
        "sequence: id, class: label, split: split, time: time; values: x, y"
    )


@pytest.mark.parametrize(
    ("by", "decimal", "said"),
    [
        (",", ".", None),
        (";", ".", "semicolons between columns"),
        (";", ",", "semicolons between columns, decimal commas"),
        ("\t", ",", "tabs between columns, decimal commas"),
        ("|", ".", "bars between columns"),
        (" ", ".", "spaces between columns"),
        ("   ", ",", "spaces between columns, decimal commas"),
    ],
)
def test_separators_and_decimal_commas_are_found_and_said(
    tmp_path: Path, by: str, decimal: str, said: str | None
) -> None:
    data = load(write(tmp_path, text(by=by, decimal=decimal)))
    check(data)
    assert data.notes[1:] == (() if said is None else (said,))


@pytest.mark.parametrize(
    "changed",
    [
        lambda csv: csv.replace("\n", "\r\n"),
        lambda csv: "\ufeff" + csv,
        lambda csv: csv.rstrip("\n"),
        lambda csv: csv.replace("\n", "\n\n"),
        lambda csv: "\n\n" + csv,
        lambda csv: csv.replace(",", ", "),
        lambda csv: csv.replace("walk", '"walk"').replace("7.5", '"7.5"'),
        lambda csv: csv.replace("time", "Time").replace("label", "CLASS"),
        lambda csv: re.sub(r"^", lambda m: ",", csv, flags=re.M).rstrip(","),
    ],
    ids=["Windows", "mark", "no end", "empty lines", "empty first", "spaces", "quotes", "case",
         "row numbers"],
)  # fmt: skip
def test_tables_as_programs_write_them(tmp_path: Path, changed: Callable[[str], str]) -> None:
    check(load(write(tmp_path, changed(text()))))


def test_decimal_commas_in_quotes(tmp_path: Path) -> None:
    rows = [(*row[:4], f'"{row[4]}"'.replace(".", ","), row[5]) for row in ROWS]
    data = load(write(tmp_path, text(rows)))
    check(data)
    assert data.notes[1:] == ("decimal commas",)


def test_a_decimal_comma_far_down(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [(1, step, "a", step, 0) for step in range(500)]
    rows += [(2, step, "b", step, 0) for step in range(500)]
    rows[700] = (2, 200, "b", "0,25", 0)
    names = ("id", "time", "label", "x", "z")
    data = load(
        write(
            tmp_path,
            text([(*row, "train") for row in rows], (*names, "split"), ";")
            + "3;1;a;1;1;test\n4;1;a;1;1;valid\n",
        )
    )
    assert data.train.x[1, 200, 0] == 0.25


@pytest.mark.parametrize("times", [
    ["2026-11-26", "2026-11-27", "2026-11-28"],
    ["2026-11-26 09:30:00", "2026-11-26 09:30:00.5", "2026-11-26 09:30:01"],
    ["2026-11-26T09:30:00Z", "2026-11-26T09:30:01Z", "2026-11-26T10:00:00Z"],
    ["-1.5", "1e-3", "200"],
    ["1767225600000000000", "1767225600000000001", "1767225600000000002"],
])  # fmt: skip
def test_times_are_put_in_order(tmp_path: Path, times: list[str]) -> None:
    """Numbers as numbers, where text would sort otherwise; 64-bit ones without rounding."""
    order = {0: times[0], 1: times[1], 2: times[2], 5: times[2]}
    rows = [(row[0], order[row[1]], *row[2:]) for row in ROWS]
    check(load(write(tmp_path, text(rows))))
    check(
        load(write(tmp_path, text(rows, by=";").replace(".", ",")))
        if "." in times[0]
        else load(write(tmp_path, text(rows)))
    )


def test_without_a_time_rows_are_in_order(tmp_path: Path) -> None:
    rows = sorted(ROWS)
    data = load(
        write(tmp_path, text([(row[0], *row[2:]) for row in rows], (COLUMNS[0], *COLUMNS[2:])))
    )
    check(data)
    assert data.notes[0].startswith("sequence: id, class: label, split: split, time: the order of")


def test_text_ids_are_in_order_of_text(tmp_path: Path) -> None:
    names = {10: "b", 2: "a", 3: "c", 4: "d"}
    check(load(write(tmp_path, text([(names[row[0]], *row[1:]) for row in ROWS]))))


def test_classes_of_whole_numbers_are_in_order_of_numbers(tmp_path: Path) -> None:
    csv = text().replace("walk", "10").replace("run", "2")
    assert load(write(tmp_path, csv)).spec.labels == ("2", "10")
    assert load(
        write(
            tmp_path,
            csv.replace("2,0,2", "2,0,x").replace("2,1,2", "2,1,x").replace("3,0,2", "3,0,x"),
        )
    ).spec.labels == ("10", "x")


def test_columns_by_name(tmp_path: Path) -> None:
    """None of them has a usual name; one is neither a value nor anything else."""
    columns = ("patient", "tick", "diagnosis", "split", "x", "y", "weight")
    rows = [(*row, 1) for row in ROWS]
    source = Source(
        write(tmp_path, text(rows, columns)), id="patient", time="tick", label="diagnosis",
        features=("x", "y"),
    )  # fmt: skip
    data = load(source)
    check(data)
    assert data.notes == (
        "sequence: patient, class: diagnosis, split: split, time: tick; values: x, y; "
        "left out: weight",
    )


def test_groups(tmp_path: Path) -> None:
    rows = [(*row, f"person {row[0] % 4}") for row in ROWS]
    data = load(Source(write(tmp_path, text(rows, (*COLUMNS, "person"))), groups="person"))
    check(data)
    assert data.train.groups is not None
    assert data.train.groups.tolist() == ["person 2", "person 2"]
    assert data.test.groups is not None
    assert data.test.groups.tolist() == ["person 3"]


def test_what_has_a_usual_name_is_no_value(tmp_path: Path) -> None:
    """A row number and a second clock would give the answer away, or be noise."""
    rows = [(i, *row[:2], i, *row[2:]) for i, row in enumerate(ROWS)]
    csv = text(rows, ("", "id", "time", "step", *COLUMNS[2:]))
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, csv))
    assert str(caught.value) == (
        f"{tmp_path}/table.csv: several columns may be the time; got time, step. Say which one is: "
        "--time time."
    )
    data = load(Source(write(tmp_path, csv), time="time"))
    check(data)
    assert data.notes[0].endswith("; values: x, y; left out: (no name), step")


def test_an_axis_y_is_no_class(tmp_path: Path) -> None:
    rows = [(*row[:2], *row[3:], 0) for row in ROWS]
    columns = ("id", "time", "split", "x", "y", "z")
    with pytest.raises(InputError, match="no column says which class a sequence has"):
        load(write(tmp_path, text(rows, columns)))
    columns = ("id", "t", "split", "x", "speed", "y")
    data = load(write(tmp_path, text([(*row[:5], row[0] % 2) for row in rows], columns)))
    assert data.spec.labels == ("0", "1")
    assert data.spec.feature_names == ("x", "speed")


def test_splits_that_are_not_named_are_cut_if_they_may_be(tmp_path: Path) -> None:
    rows = [(i, step, "ab"[i % 2], i, step) for i in range(20) for step in range(2)]
    columns = ("id", "time", "label", "x", "y")
    with pytest.raises(
        InputError, match=r"table\.csv has no test split\. Give one, or .*--test-sha"
    ):
        load(write(tmp_path, text(rows, columns)))
    with pytest.warns(UserWarning, match=r"table\.csv has no test split: 4 of its 20 training"):
        data = load(Source(write(tmp_path, text(rows, columns)), test_share=0.2))
    assert [len(each.y) for each in (data.train, data.valid, data.test)] == [15, 1, 4]
    every = np.concatenate([data.train.x, data.valid.x, data.test.x])[:, 0, 0]
    assert sorted(every.tolist()) == list(range(20))
    assert np.bincount(data.test.y).tolist() == [2, 2]


@pytest.mark.parametrize("names", [("Training", "VAL", "testing"), ("train", "dev", "Test")])
def test_names_of_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    csv = text()
    for old, new in zip((",train,", ",valid,", ",test,"), names, strict=True):
        csv = csv.replace(old, f",{new},")
    check(load(write(tmp_path, csv)))


# --- parquet ---
def parquet(folder: Path, **change: Any) -> str:
    columns: dict[str, Any] = {
        name: list(cells) for name, cells in zip(COLUMNS, zip(*ROWS, strict=True), strict=True)
    }
    columns["x"] = [float(cell) for cell in columns["x"]]
    path = folder / "table.parquet"
    pa.parquet.write_table(pa.table(columns | change), path)
    return str(path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"id": ["10", "2", "10", "3", "10", "4", "2"]},
        {"time": pa.array([0, 0, 2, 0, 1, 5, 1], pa.timestamp("ms"))},
        {"time": pa.array([0, 0, 2, 0, 1, 5, 1], pa.date32())},
        {"time": pa.array([0, 0, 2, 0, 1, 5, 1], pa.float32())},
        {"time": ["0", "0", "2", "0", "1", "5", "1"]},
        {"label": pa.array([row[2] for row in ROWS]).dictionary_encode()},
        {"y": pa.array([row[5] for row in ROWS], pa.uint8())},
        {"x": pa.array([row[4] for row in ROWS], pa.float32())},
    ],
)  # fmt: skip
def test_parquet(tmp_path: Path, change: dict[str, Any]) -> None:
    data = load(parquet(tmp_path, **change))
    check(data)
    assert len(data.notes) == 1


def test_parquet_with_gaps(tmp_path: Path) -> None:
    path = parquet(tmp_path, x=[1.0, 7.5, 3.0, -2.0, None, 1e3, 8.0])
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}, row 5, column 'x': a value is missing. Add --missing interpolate, which draws a "
        "line between the values before and after it, or --missing zero."
    )
    check(load(Source(path, missing="interpolate")))


def test_parquet_of_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, x=["1"] * 7)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}, column 'x': not numbers; expected numbers, got string. Name the columns to use: "
        "--features."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": [[row[0]] for row in ROWS]}, "column 'id': not texts; expected texts"),
        ({"time": [True] * 7}, "column 'time': not times; expected numbers, dates"),
        ({"label": [None] + ["a"] * 6}, "row 1, column 'label': empty; expected a text"),
        ({"time": [None, *range(6)]}, "row 1, column 'time': empty; expected a text"),
        ({"label": [b"\xff"] * 7}, "column 'label': not texts; expected texts"),
    ],
)  # fmt: skip
def test_parquet_of_other_columns(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = parquet(tmp_path, **change)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_damaged_parquet(tmp_path: Path) -> None:
    whole = Path(parquet(tmp_path))
    content = whole.read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], b"PAR1" + bytes(100), b"x,y\n"):
        whole.write_bytes(damaged)
        with pytest.raises(InputError, match=r"table\.parquet: not a whole \.parquet file; got "):
            load(str(whole))


# --- what is wrong ---
def lines(*changes: tuple[int, str]) -> str:
    """The table with other lines, counted from 1."""
    found = text().splitlines()
    for number, line in changes:
        found[number - 1 : number] = [line]
    return "\n".join(found) + "\n"


BAD = {
    "no id": (
        text(columns=("person", *COLUMNS[1:])),
        ": no column says which sequence a row belongs to; expected one called id, sample, "
        "sequence, seq or alike, got person, time, label, split, x, y. Say which one does: --id "
        "COLUMN.",
    ),
    "no label": (
        text(columns=("id", "time", "activity", "split", "x", "z")),
        ": no column says which class a sequence has; expected one called label, class, target, "
        "category or alike, got id, time, activity, split, x, z. Say which one does: --label "
        "COLUMN.",
    ),
    "several ids": (
        text(columns=("id", "time", "label", "split", "recording", "y")),
        ": several columns may be the id; got id, recording. Say which one is: --id id.",
    ),
    "a text among numbers": (
        lines((4, "10,2,walk,train,three,6")),
        ", line 4, column 'x': not a number; expected a number, or nothing where it is missing, "
        "got 'three'. Correct it, or name the columns to use: --features.",
    ),
    "two labels": (
        lines((4, "10,2,run,train,3,6")),
        ", column 'label': two classes in the sequence '10'; expected one in all of its rows, got "
        "'walk' in line 2 and 'run' in line 4. Is 'id' the column that tells sequences apart? If "
        "not, say --id COLUMN. For a class at each step, train with "
        "--answer every_step.",
    ),
    "two splits": (
        lines((4, "10,2,walk,test,3,6")),
        ", column 'split': two splits in the sequence '10'; expected one in all of its rows, got "
        "'train' in line 2 and 'test' in line 4. Is 'id' the column that tells sequences apart? If "
        "not, say --id COLUMN.",
    ),
    "a time twice": (
        lines((4, "10,1,walk,train,3,6")),
        ", column 'time': the time 1 twice in one sequence; got line 4 and line 6. Is 'id' the "
        "column that tells sequences apart? If not, say --id COLUMN.",
    ),
    "a value missing": (
        lines((4, "10,2,walk,train,,6")),
        ", line 4, column 'x': a value is missing. Add --missing interpolate, which draws a line "
        "between the values before and after it, or --missing zero.",
    ),
    "an infinite value": (
        lines((4, "10,2,walk,train,inf,6")),
        ", line 4, column 'x': not a number that float32 can hold; expected at most 3.4e+38, got "
        "inf",
    ),
    "no label in a row": (
        lines((4, "10,2,,train,3,6")),
        ", line 4, column 'label': empty; expected a text or a number in every row",
    ),
    "no id in a row": (
        lines((4, ",2,walk,train,3,6")),
        ", line 4, column 'id': empty; expected a text or a number in every row",
    ),
    "no time in a row": (
        lines((4, "10,,walk,train,3,6")),
        ", line 4, column 'time': empty; expected a text or a number in every row",
    ),
    "bad times": (
        lines((2, "10,noon,walk,train,1,4")),
        ", column 'time': times that cannot be ordered; expected numbers, or dates such as "
        "2026-11-26 09:30:00, in all rows, got 'noon' in line 2",
    ),
    "a short line": (
        lines((4, "10,2,walk,train,3")),
        ", line 4: another number of columns; expected 6, as line 1 has, got 5",
    ),
    "a long line": (
        lines((4, "10,2,walk,train,3,6,7")),
        ", line 4: another number of columns; expected 6, as line 1 has, got 7",
    ),
    "another split": (
        lines((5, "3,0,run,holdout,-2,0")),
        ", column 'split': not a split; expected train, valid or test, got 'holdout'",
    ),
    "nothing to train on": (
        text().replace("train", "test"),
        ", column 'split': no sequence to train on; expected train in some rows, got test, valid",
    ),
    "a name twice": (
        text(columns=("id", "time", "label", "split", "x", "x")),
        ", line 1: two columns have one name; got 'x'",
    ),
    "no values": (
        text([row[:4] for row in ROWS], COLUMNS[:4]),
        ": no column has values; expected one for each value of a step, got id, time, label, split",
    ),
    "no names": (
        text().partition("\n")[2].replace("walk", "1").replace("run", "2").replace("train", "0")
        .replace("test", "1").replace("valid", "2"),
        ", line 1: numbers where the names of the columns are expected; expected a line such as "
        "id,time,label,x, got 10, 0, 1, 0, 1",
    ),
    "no rows": (text([]), ": no rows below the names of the columns"),
    "an empty file": ("", ": an empty file"),
    "only empty lines": ("\n\n", ": an empty file"),
    "one class": (
        text().replace("walk", "run"), ": too few classes; expected at least 2, got run",
    ),
    "points and commas": (
        lines((4, "10;2;walk;train;3,5;6")).replace(",", ";").replace("3;5;", "3,5;"),
        ", line 4, column 'x': a number with decimal commas, where others have decimal points; "
        "expected one of both in the whole file, got '3,5'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_bad_tables(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value) == path + message


@pytest.mark.parametrize("role", ["id", "time", "label", "groups"])
def test_a_column_that_is_not_there(tmp_path: Path, role: str) -> None:
    path = write(tmp_path)
    with pytest.raises(InputError) as caught:
        load(Source(path, **{role: "nobody"}))  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"{path}: no column 'nobody', which --{role} names; expected one of id, time, label, "
        "split, x, y"
    )


def test_a_feature_that_is_not_there_or_something_else(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(
        InputError, match="no column 'z', which --features names; expected one of id"
    ):
        load(Source(path, features=("x", "z")))
    with pytest.raises(InputError) as caught:
        load(Source(path, features=("x", "time")))
    assert str(caught.value) == (
        f"{path}: the column 'time' is both the time and a feature. Leave it out of --features, or "
        "say another --time."
    )


def test_the_line_of_an_error_far_down_and_behind_quotes(tmp_path: Path) -> None:
    """Of the file, not of the rows: an empty line, and a cell of two lines, come before."""
    rows = [(i, 0, '"a\nb"' if i == 3 else "c", i, 0) for i in range(3_000)]
    csv = text(rows, ("id", "time", "label", "x", "z")).replace("\n9,", "\n\n9,", 1)
    number = csv[: csv.index("\n2500,")].count("\n") + 2
    with pytest.raises(
        InputError, match=rf"table\.csv, line {number}, column 'x': not a number; .*'o'"
    ):
        load(write(tmp_path, csv.replace("\n2500,0,c,2500,", "\n2500,0,c,o,")))
    with pytest.raises(
        InputError, match=rf"table\.csv, line {number}, column 'x': a value is miss"
    ):
        load(write(tmp_path, csv.replace("\n2500,0,c,2500,", "\n2500,0,c,,")))


@pytest.mark.parametrize(
    "content", [text().encode("utf-16"), "id,label,x\n1,ü,2\n".encode("latin-1")]
)
def test_text_that_is_not_utf8(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"table\.csv: not a text in UTF-8; got the byte 0x.*Save it"
    ):
        load(str(path))


def test_missing_values_written_in_any_way(tmp_path: Path) -> None:
    for written in ("", "?", "NA", "NaN", "nan", "null", "None"):
        source = Source(
            write(tmp_path, lines((6, f"10,1,walk,train,{written},5"))), missing="interpolate"
        )
        check(load(source))


def test_a_folder_or_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no such file: .*table\.csv$"):
        load(str(tmp_path / "table.csv"))
    with pytest.raises(InputError, match=r"^no such file: .*table\.parquet$"):
        load(str(tmp_path / "table.parquet"))


# --- a class at each step ---
PHASES = """id,time,label,split,x
1,0,rest,train,0
1,1,rest,train,1
1,2,walk,train,5
2,0,walk,train,6
2,1,,train,7
3,0,rest,valid,0
3,1,walk,valid,5
4,1,-1,test,4
4,0,walk,test,5
"""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_class_may_change_within_a_sequence(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, PHASES)
    if suffix == ".parquet":  # with a null where the text has nothing
        options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        table = pyarrow.csv.read_csv(path, convert_options=options)
        path = str(tmp_path / "table.parquet")
        pyarrow.parquet.write_table(table, path)
    data = load(Source(path, answer="every_step"))
    assert data.spec.every_step
    assert data.spec.labels == ("rest", "walk")
    assert data.train.y.tolist() == [[0, 0, 1], [1, -1, -1]]
    assert data.valid.y.tolist() == [[0, 1, -1]]
    assert data.test.y.tolist() == [[1, -1, -1]]  # by time
    assert describe(data).startswith(
        "3 sequences of 2 to 3 steps, 1 feature, 2 classes of steps (1 step without): rest (3), "
        "walk (3); 1 to test"
    )


def test_one_class_a_sequence_stays_that_for_an_answer_at_every_step(tmp_path: Path) -> None:
    data = load(Source(write(tmp_path), answer="every_step"))
    check(data)
    assert data.spec.every_step
    assert not data.train.labelled_by_step


def test_a_class_at_each_step_where_none_is_asked_for(tmp_path: Path) -> None:
    message = r"two classes in the sequence '1'.*'rest' in line 2 and 'walk' in line 4.* --answer e"
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, PHASES.replace("2,1,,", "2,1,walk,")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PHASES.replace("rest", "-1"),
            r"too few classes; .*got walk. -1 stands for a step with",
        ),
        (PHASES.replace("4,0,walk", "4,0,"), r"a sequence of test without a label; .*example 0"),
    ],
)
def test_bad_classes_of_steps(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(Source(write(tmp_path, content), answer="every_step"))


def test_windows_have_the_classes_of_their_steps(tmp_path: Path) -> None:
    """But for a window without any."""
    rows = [
        f"{i},{t},{'' if t < 3 else 'ab'[t % 2]},{split},{t}"
        for i, split in enumerate(("train", "train", "valid", "test"))
        for t in range(7)
    ]
    path = write(tmp_path, "\n".join(["id,time,label,split,x", *rows]))
    data = load(Source(path, answer="every_step", window=3, stride=2))
    assert data.spec.timesteps == 3
    starts = data.train.x[:, 0, 0].tolist()
    assert set(starts) == {2, 4}
    for start, y in zip(starts, data.train.y.tolist(), strict=True):
        assert y == {2: [-1, 1, 0], 4: [0, 1, 0]}[start]
