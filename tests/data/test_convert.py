"""Writing shards: whole or not at all, going on after a kill, over nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import Capture, refusal

from rnn_tf.config import Source
from rnn_tf.data import SequenceData, convert, load, records
from rnn_tf.data.convert import main, write
from rnn_tf.errors import InputError


def contents(folder: Path) -> dict[str, str]:
    """What is in the files of a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


class Killed(BaseException):
    """As a signal would, it passes whatever handles errors."""


def begin_and_die(data: SequenceData, out: Path) -> None:
    """Write four shards, of 51, 51, 51 and 50 examples, and die in the third."""
    serialized, count = records.serialized, 0

    def dies(x: np.ndarray, y: np.ndarray) -> bytes:
        nonlocal count
        count += 1
        if count == 130:
            raise Killed
        return serialized(x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "serialized", dies)
        with pytest.raises(Killed):
            write(data, out, 4)


def test_a_killed_conversion_goes_on_and_ends_as_one_that_was_not(
    small: SequenceData, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write(small, whole, 4)
    begin_and_die(small, broken)
    left = {path.name for path in broken.iterdir()}
    assert {name for name in left if not name.startswith(".")} == {
        f"train-0000{i}-of-00004.tfrecord" for i in range(2)
    }
    with pytest.raises(InputError, match=r"is not written to its end\. Give the command"):
        load(f"tfrecord:{broken}")
    # As a kill of the process leaves it.
    (broken / ".train-00002-of-00004.12345.tfrecord").write_bytes(b"half")
    first = broken / "train-00000-of-00004.tfrecord"
    written_at = first.stat().st_mtime_ns
    write(small, broken, 4)
    assert first.stat().st_mtime_ns == written_at
    assert contents(broken) == contents(whole)
    assert not list(broken.glob(".*"))


def test_what_is_there_is_never_overwritten(small: SequenceData, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begin_and_die(small, begun)
    other = dataclasses.replace(small, test=small.valid)
    for data, shards in ((small, 5), (other, 4)):
        with pytest.raises(InputError, match="begun holds the beginning of other shards; expected"):
            write(data, begun, shards)
    moved = small.train.x.copy()
    moved[0] += 1
    changed = dataclasses.replace(small, train=small.train._replace(x=moved))
    with pytest.raises(InputError, match=r"00000-of-00004\.tfrecord holds other sequences than"):
        write(changed, begun, 4)
    damaged = begun / "train-00001-of-00004.tfrecord"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"00001-of-00004\.tfrecord is damaged\. Delete it, and"):
        write(small, begun, 4)
    damaged.unlink()
    write(small, begun, 4)
    np.testing.assert_array_equal(load(str(begun)).train.x[:], small.train.x)
    with pytest.raises(InputError, match=r"already holds a set of shards: .* Delete it to write"):
        write(small, begun, 4)
    (tmp_path / "file").touch()
    for place, message in ((tmp_path, "the folder is not empty"), (tmp_path / "file", "not a fol")):
        with pytest.raises(InputError, match=message):
            write(small, place, 4)


def test_the_command_writes_what_load_reads(
    small_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "set"
    assert main([str(small_npz), str(out), "--shards", "16"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("train 203 sequences in 16 shards, 0.0 MiB")
    assert printed[-1] == f"train with: rnn-tf train --dataset tfrecord:{out}"
    again = tmp_path / "again"
    assert main([f"tfrecord:{out}", str(again), "--shards", "1"]) == 0
    expected = load(str(small_npz))
    for folder in (out, again):
        found = load(f"tfrecord:{folder}")
        assert found.spec == expected.spec
        np.testing.assert_array_equal(found.train.x[:], expected.train.x)
        np.testing.assert_array_equal(found.valid.y, expected.valid.y)
    assert len(list(again.glob("*.tfrecord"))) == 3


def test_settings_of_the_source_are_its_own(tmp_path: Path) -> None:
    lines = [
        "id,time,label,x",
        *(f"{i},{t},{'ab'[i % 2]},{i + t}" for i in range(30) for t in (1, 2, 3)),
    ]
    table = tmp_path / "steps.csv"
    table.write_text("\n".join(lines))
    out = tmp_path / "set"
    with pytest.warns(UserWarning, match="no test split"):
        assert main([str(table), str(out), "--test-share", "0.2", "--shards", "2"]) == 0
    with pytest.warns(UserWarning, match="no test split"):
        expected = load(Source(str(table), test_share=0.2))
    found = load(f"tfrecord:{out}")
    assert found.notes == expected.notes
    np.testing.assert_array_equal(found.test.x[:], expected.test.x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnst", "OUT"], "unknown dataset 'mnst'"),
        (["NPZ", "OUT", "--shards", "0"], "bad --shards; expected 1 to 99,999, got 0"),
        (["NPZ", "OUT", "--id", "x"], "--id means nothing in"),
        (["tfrecord:no/*", "OUT"], "no file matches no/*"),
    ],
)
def test_what_cannot_be_converted(
    arguments: list[object], message: str, small_npz: Path, tmp_path: Path, capsys: Capture
) -> None:
    places = {"OUT": tmp_path / "out", "NPZ": small_npz}
    line = refusal(main, [places.get(str(each), each) for each in arguments], capsys)
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line(
    small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")

    class Full:
        def __init__(self, _: Path) -> None:
            pass

        def __enter__(self) -> Path:
            return tmp_path / "full"

        def __exit__(self, *_: object) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(convert, "writing", Full)
        with pytest.raises(InputError, match=r"cannot write .*Free some space, and give the same"):
            convert._write(tmp_path / "train-00000-of-00001.tfrecord", small.train, range(203))
