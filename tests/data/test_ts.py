"""The `.ts` format, whole: what is there is read exactly, what is wrong is named with its line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rnn_tf.config import Source
from rnn_tf.data import SequenceData, load
from rnn_tf.errors import InputError

FILES = Path(__file__).parent / "files" / "ts"

HEADER = """# A comment
% and another
@problemName Small
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true b a
@data
"""
LINES = ["1,2,3:4,5,6:a", "7,8:9,10:b", "1.5:-2e3:a", "0,1:2,3:b"]


def write(
    folder: Path, lines: list[str] | str = LINES, header: str = HEADER, name: str = "S"
) -> str:
    """A file of the lines for each split, so that none is cut off."""
    text = lines if isinstance(lines, str) else "\n".join(lines) + "\n"
    for split in ("TRAIN", "TEST"):
        (folder / f"{name}_{split}.ts").write_text(header + text)
    return str(folder / f"{name}_TRAIN.ts")


def sequences(data: SequenceData) -> list[tuple[list[list[float]], str]]:
    """The test split, each sequence without its padding and with its class."""
    split = data.test
    lengths = [split.x.shape[1]] * len(split.x) if split.lengths is None else split.lengths
    return [
        (x[:length].tolist(), data.spec.labels[y])
        for x, y, length in zip(split.x, split.y, lengths, strict=True)
    ]


def test_japanese_vowels() -> None:
    """What its description says: 270 and 370 utterances, 7 to 29 steps, 12 features, 9 speakers."""
    data = load(str(FILES / "JapaneseVowels_TRAIN.ts"))
    assert (data.spec.timesteps, data.spec.longest, data.spec.features) == (None, 29, 12)
    assert data.spec.labels == tuple("123456789")
    train = np.concatenate([data.train.y, data.valid.y])
    assert np.bincount(train).tolist() == [30] * 9
    assert np.bincount(data.test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert data.test.x.shape == (370, 29, 12)
    assert data.test.x.dtype == np.float32
    assert data.test.lengths is not None
    assert (data.test.lengths.min(), data.test.lengths.max()) == (7, 29)
    # The first line of the file, first and last value of the first dimension.
    line = (FILES / "JapaneseVowels_TEST.ts").read_text().partition("@data\n")[2].split("\n")[0]
    first = [float(value) for value in line.split(":")[0].split(",")]
    np.testing.assert_array_equal(data.test.x[0, : len(first), 0], np.array(first, np.float32))
    assert data.test.lengths[0] == len(first)
    assert not data.test.x[0, len(first) :].any()


def test_the_folder_and_either_name_are_the_same(tmp_path: Path) -> None:
    path = Path(write(tmp_path))
    for other in (tmp_path, path.with_name("S_TEST.ts")):
        data = load(str(other))
        assert sequences(data) == sequences(load(str(path)))
        np.testing.assert_array_equal(data.train.x, load(str(path)).train.x)


def test_values_lengths_and_the_order_of_the_classes(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    assert data.spec.labels == ("b", "a")  # as the header has them
    assert sequences(data) == [
        ([[1, 4], [2, 5], [3, 6]], "a"),
        ([[7, 9], [8, 10]], "b"),
        ([[1.5, -2000]], "a"),
        ([[0, 2], [1, 3]], "b"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        HEADER.lower().replace("@classlabel true b a", "@CLASSLABEL TRUE b a"),
        HEADER.replace("@equalLength false\n", "").replace("@univariate false\n", ""),
        HEADER.replace("@dimensions 2\n", "@someBodysOwn key\n\n"),
        HEADER.replace("\n", "\r\n"),
        "\ufeff" + HEADER,
    ],
    ids=["case", "optional lines", "unknown key", "Windows", "byte order mark"],
)
def test_headers_as_they_come(tmp_path: Path, header: str) -> None:
    data = load(write(tmp_path, header=header))
    assert sequences(data) == sequences(load(write(tmp_path)))
    assert data.spec.labels == ("b", "a")


def test_one_dimension_of_one_length(tmp_path: Path) -> None:
    header = HEADER.replace("univariate false\n@dimensions 2", "univariate true")
    header = header.replace("equalLength false", "equalLength true\n@seriesLength 3")
    data = load(write(tmp_path, ["1,2,3:a", "4,5,6:b", "7,8,9:a", "1,1,1:b"], header))
    assert (data.spec.timesteps, data.spec.features) == (3, 1)
    assert data.test.lengths is None
    assert sequences(data)[1] == ([[4], [5], [6]], "b")


def test_one_length_whatever_the_header_says(tmp_path: Path) -> None:
    data = load(write(tmp_path, ["1,2:3,4:a", "1,2:3,5:b"] * 2))
    assert data.spec.timesteps == 2


@pytest.mark.parametrize("written", ["?", "NaN", " ? "])
def test_missing_values(tmp_path: Path, written: str) -> None:
    lines = [f"1,{written},3:4,5,{written}:a", *LINES[1:]]
    path = write(tmp_path, lines)
    message = re.escape(
        f"{path}, line 10, dimension 1, value 2: a value is missing. Add --missing interpolate, "
        "which draws a line between the values before and after it, or --missing zero."
    )
    with pytest.raises(InputError, match=message):
        load(path)
    drawn, zero = (load(Source(path, missing=how)) for how in ("interpolate", "zero"))
    assert sequences(drawn)[0][0] == [[1, 4], [2, 5], [3, 5]]
    assert sequences(zero)[0][0] == [[1, 4], [0, 5], [3, 0]]


def test_time_stamps(tmp_path: Path) -> None:
    """Steps are the times of all dimensions, in order."""
    header = HEADER.replace("timeStamps false", "timeStamps true")
    lines = [
        "(0.5,1),(2,3),(1,2):(1,5),(0.5,4),(2,6):a",
        "(2026-11-26 09:30:00,8),(2026-11-26 09:29:59,7):"
        "(2026-11-26 09:30:00,10),(2026-11-26 09:29:59,9):b",
        "(0,1.5):(0,-2e3):a",
        "( 1 , 1 ), (0,0):(0,2),(1,3) :b",
    ]
    assert sequences(load(write(tmp_path, lines, header))) == sequences(load(write(tmp_path)))


def test_dimensions_with_other_time_stamps_have_gaps(tmp_path: Path) -> None:
    header = HEADER.replace("timeStamps false", "timeStamps true")
    path = write(tmp_path, ["(0,1),(1,2),(2,3):(0,4),(2,6):a", "(0,7):(0,9):b"] * 2, header)
    with pytest.raises(
        InputError, match=r"line 10, dimension 2, value 2: a value is missing\. Add"
    ):
        load(path)
    assert sequences(load(Source(path, missing="interpolate")))[0][0] == [[1, 4], [2, 5], [3, 6]]


def test_without_a_test_file_a_test_split_is_cut_if_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.ts"
    path.write_text(HEADER + "\n".join(LINES * 5))
    with pytest.raises(
        InputError, match=r"mine\.ts has no test split\. Give one, or .*--test-share"
    ):
        load(str(path))
    with pytest.warns(UserWarning, match=r"mine\.ts has no test split: 4 of its 20 training"):
        data = load(Source(str(path), test_share=0.2))
    assert [len(each.y) for each in (data.train, data.valid, data.test)] == [15, 1, 4]
    # In order of the file, and each example once.
    assert len(np.concatenate([data.train.x, data.valid.x, data.test.x])) == 20


def change(header: str, old: str, new: str) -> str:
    assert old in header
    return header.replace(old, new)


MULTI = {
    "regression": (
        change(HEADER, "@classLabel true b a", "@targetlabel true"), LINES,
        "line 8: a regression problem: its targets are numbers, not classes; expected @classLabel "
        "true and the names of the classes, got @targetlabel true",
    ),
    "no class label": (
        change(HEADER, "@classLabel true b a\n", ""), LINES,
        ": no @classLabel in the header; expected @classLabel true and the names of the classes",
    ),
    "no classes": (
        change(HEADER, "true b a", "false"), LINES,
        "line 8: sequences without classes; expected @classLabel true and the names of the "
        "classes, got false",
    ),
    "one class": (
        change(HEADER, "true b a", "true b"), LINES,
        "line 8: too few classes; expected at least 2, got b",
    ),
    "a class twice": (
        change(HEADER, "true b a", "true b b a"), LINES, "line 8: a class twice; got b",
    ),
    "wrong dimensions": (
        change(HEADER, "@dimensions 2", "@dimensions 3"), LINES,
        "line 10: another number of dimensions; expected 3, as the header says, got 2. Is the line "
        "whole? If it is, correct @dimensions and @univariate.",
    ),
    "wrong univariate": (
        change(HEADER, "@univariate false\n@dimensions 2", "@univariate true"), LINES,
        "line 9: another number of dimensions; expected 1, as the header says, got 2. Is the line "
        "whole? If it is, correct @dimensions and @univariate.",
    ),
    "contradiction": (
        change(HEADER, "@univariate false", "@univariate true"), LINES,
        "line 5: the header contradicts itself; expected @univariate false, as there are 2 "
        "dimensions, got @univariate true",
    ),
    "wrong equal length": (
        change(HEADER, "@equalLength false", "@equalLength true"), LINES,
        "line 11: another length than @equalLength true allows; expected 3 values in each "
        "dimension, as line 10 has, got 2. Is the line whole? If it is, write @equalLength false.",
    ),
    "wrong length": (
        change(HEADER, "@equalLength false", "@equalLength true\n@seriesLength 4"), LINES,
        "line 11: another length than @equalLength true allows; expected 4 values in each "
        "dimension, as the header says, got 3. Is the line whole? If it is, write @equalLength "
        "false.",
    ),
    "unknown label": (
        HEADER, [*LINES, "1:2:c"],
        "line 14: the line does not end with a class of the header; expected b, a, got 'c'. Is the "
        "line whole? If it is, add the class to @classLabel.",
    ),
    "truncated": (
        HEADER, [*LINES, "1,2:3,4"],
        "line 14: the line does not end with a class of the header; expected b, a, got '3,4'. Is "
        "the line whole? If it is, add the class to @classLabel.",
    ),
    "truncated in the first dimension": (
        HEADER, [*LINES, "1,2"],
        "line 14: the line does not end with a class of the header; expected b, a, got '1,2'. Is "
        "the line whole? If it is, add the class to @classLabel.",
    ),
    "a dimension missing": (
        HEADER, [*LINES, "1,2:a"],
        "line 14: another number of dimensions; expected 2, as line 10 has, got 1. Is the line "
        "whole? If it is, correct @dimensions and @univariate.",
    ),
    "a shorter dimension": (
        HEADER, ["1,2,3:4,5:a"],
        "line 10: dimension 2 has another length than dimension 1; expected 3 values, got 2",
    ),
    "a text": (
        HEADER, ["1,x:4,5:a"],
        "line 10: dimension 1, value 2 is not a number; expected a number, or ? where it is "
        "missing, got 'x'",
    ),
    "nothing": (
        HEADER, ["1,:4,5:a"],
        "line 10: dimension 1, value 2 is not a number; expected a number, or ? where it is "
        "missing, got ''",
    ),
    "infinity": (
        HEADER, ["1,inf:4,5:a", "1:2:b"],
        "line 10, dimension 1, value 2: not a number that float32 can hold; expected at most "
        "3.4e+38, got inf",
    ),
    "no label": (HEADER, ["a"], "line 10: no values before the class"),
    "no sequence": (HEADER, [], ": no sequence after @data"),
    "no data": (
        change(HEADER, "@data\n", ""), "",
        ": no @data; expected a header that ends with @data, got 8 lines",
    ),
    "data before @data": (
        "1,2:3,4:a\n" + HEADER, LINES, "line 1: a line of data before @data; got 1,2:3,4:a",
    ),
    "bad truth": (
        change(HEADER, "@univariate false", "@univariate no"), LINES,
        "line 5: bad @univariate; expected true or false, got no",
    ),
    "bad number": (
        change(HEADER, "@dimensions 2", "@dimensions two"), LINES,
        "line 6: bad @dimensions; expected a whole number >= 1, got two",
    ),
    "bad stamps": (
        change(HEADER, "timeStamps false", "timeStamps true"), ["(noon,1):(noon,2):a"],
        "line 10: bad time stamps; expected numbers or dates (2026-11-26 09:30:00), got noon, noon",
    ),
    "a stamp twice": (
        change(HEADER, "timeStamps false", "timeStamps true"), ["(1,1),(1,2):(1,2):a"],
        "line 10: a time twice in dimension 1; got 1",
    ),
    "no stamp": (
        change(HEADER, "timeStamps false", "timeStamps true"), ["(1,1),(2):(1,2):a"],
        "line 10: dimension 1 has values without a time; expected (time,value),(time,value), got "
        "(1,1),(2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("header", "lines", "message"), MULTI.values(), ids=MULTI.keys())
def test_bad_files(tmp_path: Path, header: str, lines: list[str], message: str) -> None:
    path = write(tmp_path, lines, header)
    comma = "" if message.startswith(":") else ", "
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value) == f"{path}{comma}{message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":4,5,6:a", ":a", "has other dimensions than {train}; expected 2, got 1"),
        ("true b a", "true b a c", "has other classes than {train}; expected a, b, got a, b, c"),
    ],
)
def test_a_test_file_of_another_problem(tmp_path: Path, old: str, new: str, message: str) -> None:
    header = HEADER.replace("@univariate false\n@dimensions 2\n", "")
    path = write(tmp_path, LINES[:1] * 2 + LINES[1:2] * 2, header)
    test = Path(path).with_name("S_TEST.ts")
    text = header + "\n".join(LINES[:1] * 2)
    test.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value) == f"{test} " + message.format(train=path)


def test_following_the_advice_about_the_header_helps(tmp_path: Path) -> None:
    header = change(HEADER, "@equalLength false", "@equalLength true")
    with pytest.raises(InputError, match="write @equalLength false"):
        load(write(tmp_path, header=header))
    assert load(write(tmp_path, header=change(header, "Length true", "Length false"))).spec.varies


def test_several_problems_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path)
    first = write(tmp_path, name="Other")
    with pytest.raises(InputError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: several data sets; expected the files of one, got Other, S. Name a file: "
        f"{Path(first).with_name('Other_TEST.ts')}."
    )
    load(str(Path(first).with_name("Other_TEST.ts")))


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for each in (elsewhere, folder):
        each.mkdir()
    link = folder / "S_TEST.ts"
    Path(write(folder)).with_name("S_TEST.ts").unlink()
    link.symlink_to(Path(write(elsewhere)).with_name("S_TEST.ts"))
    with pytest.raises(InputError) as caught:
        load(str(folder))
    assert str(caught.value) == (
        f"{link}: a link out of the folder; expected a file in {folder}. Put a copy of the file "
        "there."
    )


def test_a_test_file_alone(tmp_path: Path) -> None:
    path = Path(write(tmp_path))
    path.unlink()
    test = path.with_name("S_TEST.ts")
    with pytest.raises(InputError) as caught:
        load(str(test))
    assert str(caught.value) == (
        f"{test} has no training file beside it; expected S_TRAIN.ts in the same folder"
    )


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no such file: .*no_TRAIN\.ts$"):
        load(str(tmp_path / "no_TRAIN.ts"))


def test_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mine.ts"
    path.write_bytes(b"@problemName M\xfcller\n@data\n")
    with pytest.raises(
        InputError, match=r"mine\.ts: not a text in UTF-8; got the byte 0xfc\. Save"
    ):
        load(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"mine\.ts: an empty file$"):
        load(str(path))


def test_a_truncated_file_never_loads_as_if_it_were_whole(tmp_path: Path) -> None:
    """Cut anywhere in the middle of its last line, the real file is refused by that line."""
    for split in ("TRAIN", "TEST"):
        shutil.copy(FILES / f"JapaneseVowels_{split}.ts", tmp_path)
    train = tmp_path / "JapaneseVowels_TRAIN.ts"
    whole = train.read_bytes().rstrip()
    last = whole.rindex(b"\n") + 1
    for at in np.linspace(last + 1, len(whole) - 1, 12).astype(int):
        train.write_bytes(whole[:at])
        with pytest.raises(InputError, match="line 285: "):
            load(str(train))


def test_a_long_line_of_brackets_takes_no_time(tmp_path: Path) -> None:
    header = HEADER.replace("timeStamps false", "timeStamps true")
    with pytest.raises(InputError, match="line 10"):
        load(write(tmp_path, ["(" * 200_000 + " " * 200_000], header))
