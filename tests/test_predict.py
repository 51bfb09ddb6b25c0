"""Prediction from files: pictures and arrays of any kind, and the answer the model gives."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import refusal
from PIL import Image

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.predict import main, read

Capture = pytest.CaptureFixture[str]

COLOUR = SequenceSpec(timesteps=4, features=15, labels=("a", "b"), channels=3)
ALPHA = SequenceSpec(timesteps=4, features=20, labels=("a", "b"), channels=4)


@pytest.fixture(scope="module")
def digit(mnist: SequenceData) -> np.ndarray:
    """The first test digit, a 7: uint8 (28, 28), light on dark."""
    picture: np.ndarray = mnist.test.x[0]
    return picture


@pytest.fixture(scope="module")
def spec(mnist: SequenceData) -> SequenceSpec:
    return mnist.spec


def save(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


# --- pictures ---
def test_a_picture_that_fits_is_taken_as_it_is(
    digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    sequences = read(save(Image.fromarray(digit), tmp_path / "7.png"), spec)
    assert sequences.x.shape == (1, 28, 28)
    assert sequences.x.dtype == np.float32
    np.testing.assert_array_equal(sequences.x[0], digit)
    assert sequences.notes == ()


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
    assert sequences.notes == (f"converted from {mode} to L",)


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
    assert sequences.notes == ("resized from 280x140 to 28x28",)
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
    assert light.notes == ("mostly light: if it is dark on light, add --invert",)
    assert inverted.notes == ("inverted",)
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


# --- arrays ---
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
        ("a.npy", npy(np.array([{}], object)), r"NumPy array without objects: .*a\.npy"),
        ("a.npz", npz(("x.npy", npy(np.array([{}], object)))), r"cannot read x; got Object arrays"),
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
def test_a_bad_file_is_named_in_one_line(
    name: str, content: bytes, message: str, run: Run, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name, run.spec)
    refusal(main, [run.path, tmp_path / name], capsys)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_named(
    share: float, digit: np.ndarray, spec: SequenceSpec, tmp_path: Path
) -> None:
    path = save(Image.fromarray(digit), tmp_path / "7.png")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"^not a whole picture: .*7\.png"):
        read(path, spec)


def test_reading_an_archive_of_code_runs_none(tmp_path: Path, spec: SequenceSpec) -> None:
    class Code:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "code.npy").write_bytes(npy(np.array([Code()], object)))
    with pytest.raises(InputError, match=r"code\.npy"):
        read(tmp_path / "code.npy", spec)
    assert not (tmp_path / "ran").exists()


# --- the command ---
def test_predictions_are_those_of_the_model(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    files = [
        save(Image.fromarray(x), tmp_path / f"{i}.png") for i, x in enumerate(mnist.test.x[:20])
    ]
    assert main([str(run.path), *map(str, files), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["name"] for answer in answers] == list(map(str, files))
    scaled = mnist.test.x[:20].astype(np.float32) / np.float32(255)
    expected = run.load_model().predict(scaled, verbose=0)
    rows = [[answer["probabilities"][label] for label in "0123456789"] for answer in answers]
    # x * (1/255) and x / 255 differ in the last bit; 28 steps make 1e-6 of that.
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    for answer, row in zip(answers, rows, strict=True):
        assert answer["label"] == str(int(np.argmax(row)))
        assert answer["probability"] == max(row)


def test_text_is_a_line_for_each_sequence(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    one = save(Image.fromarray(mnist.test.x[0]), tmp_path / "one.png")
    np.save(tmp_path / "two.npy", mnist.test.x[1:3])
    assert main([str(run.path), str(one), str(tmp_path / "two.npy")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = [line.rsplit("  ", 2) for line in out.splitlines()]
    rows = run.load_model().predict(mnist.test.x[:3].astype(np.float32) / 255, verbose=0)
    names = [str(one), f"{tmp_path / 'two.npy'}[0]", f"{tmp_path / 'two.npy'}[1]"]
    assert [name for name, _, _ in found] == names
    assert [label for _, label, _ in found] == [str(row.argmax()) for row in rows]
    for (_, _, share), row in zip(found, rows, strict=True):
        assert float(share.rstrip("%")) == pytest.approx(100 * row.max(), abs=0.01)


def test_what_was_done_to_a_picture_is_said_beside_the_answer(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    picture = Image.fromarray(255 - digit).convert("RGB").resize((56, 56))
    path = save(picture, tmp_path / "7.png")
    assert main([str(run.path), str(path)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err.splitlines() == [
        f"{path}: converted from RGB to L",
        f"{path}: resized from 56x56 to 28x28",
        f"{path}: mostly light: if it is dark on light, add --invert",
    ]


def test_inverted_paper_is_the_same_digit(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    plain = save(Image.fromarray(digit), tmp_path / "plain.png")
    paper = save(Image.fromarray(255 - digit), tmp_path / "paper.png")
    assert main([str(run.path), str(plain), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main([str(run.path), str(paper), "--json", "--invert"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["probabilities"] == expected["probabilities"]


def test_one_bad_file_stops_all_before_an_answer(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    good = save(Image.fromarray(digit), tmp_path / "good.png")
    assert "no such file: " in refusal(main, [run.path, good, tmp_path / "bad.png"], capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "PATH"),
        (["RUN"], "no file to classify"),
        (["nowhere", "a.png"], "not a run: nowhere"),
        (["RUN", "nowhere.png"], "no such file: nowhere.png"),
        (["RUN", "folder.png"], "no such file: folder.png"),
        (["RUN", "nowhere.png", "--inver"], "similar: --invert"),
    ],
)
def test_bad_arguments_are_one_line(
    argv: list[str], message: str, run: Run, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    given: list[object] = [run.path if argument == "RUN" else argument for argument in argv]
    assert message in refusal(main, given, capsys)


def test_an_unfinished_run_is_refused(spec: SequenceSpec, tmp_path: Path, capsys: Capture) -> None:
    Run.create(tmp_path / "run", TrainConfig(), spec)
    line = refusal(main, [tmp_path / "run", "a.png"], capsys)
    assert line.startswith("error: the run is not finished: ")
