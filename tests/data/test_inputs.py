"""Files as sequences: arrays, folders, and what is wrong with some of them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inputs_read import read

from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.data.inputs import Inputs
from rnn_tf.data.profile import DataProfile
from rnn_tf.errors import InputError


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, np.float16])
def test_one_sequence_as_npy(
    dtype: type, digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    np.save(tmp_path / "7.npy", digit.astype(dtype))
    sequences = read(tmp_path / "7.npy", spec)
    assert sequences.x.dtype == np.float32
    np.testing.assert_array_equal(sequences.x, digit[np.newaxis].astype(np.float32))


def test_several_sequences_as_npy(mnist: SequenceData, tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", mnist.test.x[:5])
    np.testing.assert_array_equal(read(tmp_path / "some.npy", mnist.spec).x, mnist.test.x[:5])


@pytest.mark.parametrize("names", [("anything",), ("x",), ("x", "y"), ("y", "x")])
def test_the_array_of_an_npz_is_the_only_one_or_x(
    names: tuple[str, ...], mnist: SequenceData, tmp_path: Path
) -> None:
    wanted = "x" if "x" in names else names[0]
    digits = mnist.test.x[:5]
    arrays = {name: digits if name == wanted else np.arange(5) for name in names}
    np.savez(tmp_path / "some.npz", **arrays)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(tmp_path / "some.npz", mnist.spec).x, digits)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def broken(data: bytes, at: float) -> bytes:
    start = int(len(data) * at)
    return (
        data[:start] + bytes(255 - byte for byte in data[start : start + 16]) + data[start + 16 :]
    )


GOOD = npy(np.random.default_rng(0).integers(0, 255, (3, 28, 28), np.uint8))
# Says that it holds 8 TB, in as many bytes of header.
HUGE = GOOD.replace(b"(3, 28, 28), }" + b" " * 10, b"(10000000000, 28, 28), }")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"text", r"cannot tell what .*a\.txt is; expected \.png, .*\.npz, got \.txt"),
        ("digit", b"text", r"cannot tell what .*digit is; expected .*, got none"),
        ("a.png", b"text", r"not a whole picture: .*a\.png"),
        ("a.png", b"", r"not a whole picture: .*a\.png"),
        ("a.jpg", b"\xff\xd8\xff\xe0", r"not a whole picture: .*a\.jpg"),
        ("a.png", b"GIF89a\1\0\1\0\0\0\0;", r"not a whole picture: .*a\.png"),
        ("a.npy", b"", r"a\.npy"),
        ("a.npy", b"text", r"a\.npy"),
        ("a.npy", GOOD[:-1], r"a\.npy"),
        ("a.npy", GOOD.replace(b"(3, 28, 28), }", b"(3, 28, 2**9) }"), r"a\.npy"),
        ("a.npy", GOOD.replace(b"(3, 28, 28)", b"(3, 28, 28 "), r"a\.npy"),
        ("a.npy", HUGE, r"a\.npy"),
        ("a.npy", npy(np.array([{}], object)), r"a\.npy does not hold finite numbers; got object"),
        ("a.npz", npz(("x.npy", npy(np.array([{}], object)))), r"finite numbers; got object"),
        ("a.npz", b"text", r"a\.npz"),
        ("a.npz", npz(), r"which array of .*a\.npz\?"),
        ("a.npz", npz(("a.npy", GOOD), ("b.npy", GOOD)), r"which array of .*got \['a', 'b'\]"),
        ("a.npz", npz(("x.npy", GOOD))[:-30], r"a\.npz"),
        ("a.npz", broken(npz(("x.npy", GOOD)), 0.02), r"a\.npz"),
        ("a.npz", broken(npz(("x.npy", GOOD)), 0.5), r"a\.npz"),
        ("a.npz", npz(("x.txt", b"text")), r"a\.npz"),
        ("a.npy", npy(np.zeros((28, 27))), r"does not fit .*expected \(28, 28\) .*\(28, 27\)"),
        ("a.npy", npy(np.zeros(784)), r"does not fit .*got \(784,\)"),
        ("a.npy", npy(np.zeros((1, 1, 28, 28))), r"does not fit .*got \(1, 1, 28, 28\)"),
        ("a.npy", npy(np.zeros((0, 28, 28))), r"does not fit .*got \(0, 28, 28\)"),
        ("a.npy", npy(np.array(5.0)), r"does not fit .*got \(\)"),
        ("a.npy", npy(np.full((28, 28), np.nan)), r"a\.npy does not hold finite numbers"),
        ("a.npy", npy(np.full((28, 28), np.inf, np.float32)), r"does not hold finite numbers"),
        ("a.npy", npy(np.full((28, 28), 1e300)), r"a\.npy does not hold finite numbers"),
        ("a.npy", npy(np.zeros((28, 28), complex)), r"finite numbers; got complex128"),
        ("a.npy", npy(np.full((28, 28), "7")), r"does not hold finite numbers; got <U1"),
        ("a.npy", npy(np.zeros((28, 28), "M8[s]")), r"finite numbers; got datetime64"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(
    name: str, content: bytes, message: str, spec: SequenceSpec, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name, spec)


def test_reading_an_archive_of_code_runs_none(tmp_path: Path, spec: SequenceSpec) -> None:
    class Code:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "code.npy").write_bytes(npy(np.array([Code()], object)))
    with pytest.raises(InputError, match=r"code\.npy"):
        read(tmp_path / "code.npy", spec)
    assert not (tmp_path / "ran").exists()


# --- many files, folders, and examples that cannot be read ---
def said_of(
    paths: list[Path], spec: SequenceSpec, profile: DataProfile | None = None
) -> tuple[list[str], list[str], int]:
    """The names that were given, what was said, and how many files failed."""
    said: list[str] = []
    inputs = Inputs(paths, spec, profile, say=said.append)
    names = [name for block in inputs for name in block.names]
    return names, said, inputs.failed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_an_example_that_is_not_finite_is_named_and_the_others_are_read(
    bad: float, mnist: SequenceData, tmp_path: Path
) -> None:
    x = mnist.test.x[:5].astype(np.float64)
    x[3, 2, 1] = bad
    np.save(tmp_path / "x.npy", x)
    names, said, failed = said_of([tmp_path / "x.npy"], mnist.spec)
    assert names == [f"{tmp_path / 'x.npy'}[{i}]" for i in (0, 1, 2, 4)]
    assert failed == 1
    assert said == [
        f"error: 1 of 5 sequences in {tmp_path / 'x.npy'} are not finite numbers; got NaN, or "
        f"more than float32 can hold, in {tmp_path / 'x.npy'}[3]"
    ]


def test_of_many_bad_examples_the_first_are_named(spec: SequenceSpec, tmp_path: Path) -> None:
    x = np.zeros((3000, 28, 28), np.float32)
    x[5:2500, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    names, said, failed = said_of([tmp_path / "x.npy"], spec)
    assert (len(names), failed, len(said)) == (505, 1, 1)
    assert "2,495 of 3,000 sequences" in said[0]
    assert "[5], " in said[0]
    assert said[0].endswith("[14] and 2,485 more")


def test_a_block_holds_many_small_files_and_a_part_of_a_large_one(
    mnist: SequenceData, tmp_path: Path
) -> None:
    for i in range(20):
        np.save(tmp_path / f"{i:02}.npy", mnist.test.x[i])
    np.save(tmp_path / "many.npy", mnist.test.x[20:2520])
    blocks = list(Inputs([tmp_path], mnist.spec))
    assert [len(block.x) for block in blocks] == [20, 1024, 1024, 452]
    read = np.concatenate([block.x for block in blocks])
    np.testing.assert_array_equal(read, mnist.test.x[:2520])


def test_long_sequences_come_in_smaller_blocks(tmp_path: Path) -> None:
    long = SequenceSpec(timesteps=100_000, features=1, labels=("a", "b"))
    np.save(tmp_path / "x.npy", np.zeros((5, 100_000, 1), np.int8))
    assert [len(block.x) for block in Inputs([tmp_path / "x.npy"], long)] == [2, 2, 1]


def test_a_large_archive_is_read_in_little_memory(spec: SequenceSpec, tmp_path: Path) -> None:
    """As float32 these 100,000 pictures would take 314 MB; the file has 80 KB."""
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100_000, 28, 28), np.uint8))
    tracemalloc.start()
    read = sum(len(block.x) for block in Inputs([tmp_path / "x.npz"], spec))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 100_000
    # A block of 1,024 pictures takes 3.2 MB.
    assert peak < 16e6


def test_an_array_that_does_not_fit_is_refused_before_it_is_unpacked(
    spec: SequenceSpec, tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100_000, 28, 27), np.uint8))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"expected .*, got \(100000, 28, 27\)"):
        read(tmp_path / "x.npz", spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_what_is_no_input_is_left_out_of_a_folder_and_counted(
    mnist: SequenceData, tmp_path: Path
) -> None:
    np.save(tmp_path / "b.npy", mnist.test.x[0])
    np.save(tmp_path / "a.NPY.npy", mnist.test.x[1])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden.npy").write_bytes(b"")
    (tmp_path / "below").mkdir()
    names, said, failed = said_of([tmp_path], mnist.spec)
    assert names == [str(tmp_path / "a.NPY.npy"), str(tmp_path / "b.npy")]
    assert said == [f"{tmp_path}: 2 of 4 entries left out, not .png, .jpg, .jpeg, .npy, .npz"]
    assert failed == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"nothing to classify in the folder .*; expected files of \.png.*, got an empty fold"),
        (["a.txt", "b.gif"], r"nothing to classify in the folder .*; expected .*, got 2 others"),
    ],
)
def test_a_folder_without_inputs_is_said_to_be_one(
    names: list[str], message: str, spec: SequenceSpec, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match=message):
        read(tmp_path, spec)


def test_a_folder_in_the_place_of_a_file_of_a_folder_is_named(
    mnist: SequenceData, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", mnist.test.x[0])
    (tmp_path / "b.png").mkdir()
    names, said, failed = said_of([tmp_path], mnist.spec)
    assert (len(names), failed) == (1, 1)
    assert said == [f"error: not a file: {tmp_path / 'b.png'}"]


def test_what_is_damaged_at_its_end_is_read_up_to_there(
    mnist: SequenceData, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=mnist.test.x[:2500])
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    names, said, failed = said_of([tmp_path / "x.npz"], mnist.spec)
    # The checksum is that of the whole, and known at the end only.
    assert (len(names), failed) == (2048, 1)
    assert "cannot read x; got Bad CRC-32" in said[0]


# --- sequences of different lengths ---
VARYING = SequenceSpec(None, 2, ("no", "yes"), longest=5)


def varying(path: Path) -> tuple[np.ndarray, list[int]]:
    """What is read of a file, and the lengths; all in one block."""
    (block,) = Inputs([path], VARYING, say=print)
    assert block.lengths is not None
    assert block.lengths.dtype == np.int32
    return block.x, block.lengths.tolist()


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_shorter_sequence_is_padded(steps: int, tmp_path: Path) -> None:
    sequence = np.arange(1, 2 * steps + 1).reshape(steps, 2)
    np.save(tmp_path / "a.npy", sequence)
    x, lengths = varying(tmp_path / "a.npy")
    assert lengths == [steps]
    np.testing.assert_array_equal(x, [np.pad(sequence, ((0, 5 - steps), (0, 0)))])


def test_files_of_different_lengths_share_a_block(tmp_path: Path) -> None:
    for steps in (4, 2):
        np.save(tmp_path / f"{steps}.npy", np.ones((3, steps, 2)))
    x, lengths = varying(tmp_path)
    assert lengths == [2, 2, 2, 4, 4, 4]
    np.testing.assert_array_equal(x.sum(axis=(1, 2)), 2 * np.array(lengths))


def test_an_npz_says_how_long_each_sequence_is(tmp_path: Path) -> None:
    sequences = np.full((3, 4, 2), np.nan)
    for row, length in zip(sequences, (4, 1, 2), strict=True):
        row[:length] = 1
    np.savez(tmp_path / "a.npz", x=sequences, lengths=[4, 1, 2])
    x, lengths = varying(tmp_path / "a.npz")
    assert lengths == [4, 1, 2]
    np.testing.assert_array_equal(x.sum(axis=(1, 2)), 2 * np.array(lengths))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4, 0, 2], r"bad lengths in .*a\.npz; expected 3 whole numbers from 1 to 4, got 0"),
        ([4, 5, 2], r"bad lengths in .*; expected 3 whole numbers from 1 to 4, got 5"),
        ([4, 2], r"bad lengths in .*; expected 3 whole numbers .*, got int64 of shape \(2,\)"),
        ([4.0, 1.0, 2.0], r"bad lengths in .*; expected .*, got float64 of shape \(3,\)"),
    ],
)
def test_bad_lengths_are_refused(lengths: list[float], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4, 2)), lengths=lengths)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.npz", VARYING)


def test_a_sequence_that_is_too_long_or_wide_is_refused(tmp_path: Path) -> None:
    for shape in ((6, 2), (3, 6, 2), (4, 3)):
        np.save(tmp_path / "a.npy", np.ones(shape))
        message = r"does not fit the model; expected \(1 to 5, 2\) or \(n, 1 to 5, 2\), got \("
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.npy", VARYING)


def test_what_is_not_finite_within_a_sequence_is_named(tmp_path: Path) -> None:
    sequences = np.ones((3, 4, 2))
    sequences[1, 2] = np.nan
    np.savez(tmp_path / "a.npz", x=sequences, lengths=[2, 3, 4])
    with pytest.raises(InputError, match=r"1 of 3 sequences .* not finite .* in .*a\.npz\[1\]"):
        read(tmp_path / "a.npz", VARYING)
