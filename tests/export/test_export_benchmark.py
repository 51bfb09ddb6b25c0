"""The benchmark measures every format and peer, and each of them answers as the formulas do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, failure, refusal
from extras import WITH_TORCH
from networks import (
    SPEC,
    VARYING,
    in_keras,
    random_network,
    raw_input,
    some_lengths,
)
from oracle_runtime import OracleRuntime
from PIL import Image

from export import benchmark, peers
from export.benchmark import BATCHES, Measured, Worker, call_times, main, ratios, table
from export.bundle import Bundle, write_manifest
from rnn_tf.config import Cell
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.errors import CheckFailed

# PyTorch's compiler and exporter warn of what they do themselves.
IGNORE_WARNINGS = pytest.mark.filterwarnings("ignore")


def bundle_of(
    cell: Cell, activation: str, folder: Path, spec: SequenceSpec = SPEC
) -> tuple[Bundle, OracleRuntime]:
    """The part of a bundle that peers read: the Keras model, and a manifest that vouches for it."""
    network = random_network(cell, activation, spec)
    in_keras(network).save(folder / "model.keras")
    write_manifest(folder, {})
    manifest = {**json.loads((folder / "manifest.json").read_text()), "formats": {}}
    return Bundle(folder, manifest, spec), OracleRuntime(network)


# --- peers ---
# The converter that Keras calls still looks for the names of NumPy 1.
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
@pytest.mark.parametrize(
    "name",
    [
        *(name for name in peers.PEERS if "PyTorch" not in name),
        pytest.param("PyTorch eager", marks=pytest.mark.torch),
        pytest.param("ONNX by PyTorch", marks=[pytest.mark.torch, IGNORE_WARNINGS]),
    ],
)
@pytest.mark.parametrize(
    ("cell", "activation"),
    [("simple_rnn", "elu"), ("lstm", "tanh"), ("gru", "tanh")],
)
def test_a_peer_computes_the_same_function(
    name: str, cell: Cell, activation: str, tmp_path: Path
) -> None:
    """A comparison of speeds means nothing between models that answer differently."""
    if name == "ONNX by PyTorch":
        pytest.importorskip("onnxscript")
    bundle, oracle = bundle_of(cell, activation, tmp_path)
    peer = peers.PEERS[name](bundle, 1)
    for batch in (1, 5, 64):
        x = raw_input(batch)
        # float32 rounding, as everywhere.
        np.testing.assert_allclose(peer.predict(x), oracle.predict(x), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("Keras predict", "Keras tf.function", "ONNX by tf2onnx"),
        pytest.param("PyTorch eager", marks=pytest.mark.torch),
    ],
)
@pytest.mark.parametrize(("cell", "activation"), [("simple_rnn", "elu"), ("gru", "tanh")])
def test_a_peer_takes_lengths(name: str, cell: Cell, activation: str, tmp_path: Path) -> None:
    bundle, oracle = bundle_of(cell, activation, tmp_path, VARYING)
    peer = peers.PEERS[name](bundle, 1)
    for batch in (1, 5, 64):
        lengths = some_lengths(batch, VARYING)
        x = raw_input(batch)  # noise after the end
        expected = oracle.predict(x, lengths)
        np.testing.assert_allclose(peer.predict(x, lengths), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "ONNX by Keras",
        pytest.param("PyTorch compiled", marks=pytest.mark.torch),
        pytest.param("ONNX by PyTorch", marks=pytest.mark.torch),
    ],
)
def test_a_peer_that_cannot_is_left_out_with_the_reason(name: str, tmp_path: Path) -> None:
    bundle, oracle = bundle_of("gru", "tanh", tmp_path, VARYING)
    x, lengths = raw_input(2), some_lengths(2, VARYING)
    test = Split(x, oracle.predict(x, lengths).argmax(axis=1), lengths)
    with benchmark.loaded(bundle, test, [name], 1) as (workers, left_out):
        assert workers == []
    assert left_out[name].startswith("it takes no lengths: ")


@pytest.mark.slow
@pytest.mark.torch
@IGNORE_WARNINGS
def test_what_pytorch_compiles_computes_the_same_function(tmp_path: Path) -> None:
    """Its own layers it leaves as they are; this cell is compiled, for a batch of 1 and for any."""
    bundle, oracle = bundle_of("simple_rnn", "elu", tmp_path)
    peer = peers.TorchCompiled(bundle, 1)
    for batch in (1, 5):
        x = raw_input(batch)
        np.testing.assert_allclose(peer.predict(x), oracle.predict(x), atol=1e-5)


@pytest.mark.parametrize(
    "torch",
    [
        pytest.param(False, marks=pytest.mark.skipif(WITH_TORCH, reason="PyTorch is installed")),
        pytest.param(True, marks=pytest.mark.torch),
    ],
)
def test_the_usual_peers_are_measured_where_they_are_installed(torch: bool) -> None:
    without_torch = ["Keras predict", "ONNX by Keras", "ONNX by tf2onnx"]
    with_torch = [*without_torch, "PyTorch eager"]
    assert peers.installed() == (with_torch if torch else without_torch)
    assert set(with_torch) < set(peers.PEERS)


@pytest.mark.slow
@pytest.mark.torch
def test_a_compiler_that_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle, oracle = bundle_of("simple_rnn", "elu", tmp_path)
    x = raw_input(2)
    test = Split(x, oracle.predict(x).argmax(axis=1))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    name = "PyTorch compiled"
    with benchmark.loaded(bundle, test, [name], 1) as (workers, left_out):
        assert workers == []
    assert "compiler" in left_out[name].lower()


@pytest.mark.torch
def test_a_cell_that_pytorch_lacks_runs_as_a_loop(tmp_path: Path) -> None:
    bundle, oracle = bundle_of("gru", "relu", tmp_path)
    x = raw_input(5)
    found = peers.TorchEager(bundle, 1).predict(x)
    np.testing.assert_allclose(found, oracle.predict(x), rtol=0, atol=1e-5)


# --- what is measured ---
class Slow:
    """A runtime whose calls take a known number of ticks."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []
        self.lengths: list[np.ndarray] = []

    @property
    def batches(self) -> list[int]:
        return [len(x) for x in self.given]

    @property
    def seen(self) -> set[bytes]:
        return {x.tobytes() for x in self.given}

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        self.given.append(x)
        if lengths is not None:
            self.lengths.append(lengths)
        return x


def test_calls_are_timed_after_warm_up_on_inputs_that_change() -> None:
    runtime = Slow()
    times = call_times(runtime, (np.arange(60, dtype=np.uint8).reshape(20, 3, 1),), 4, 0.01)
    assert len(runtime.batches) == 3 + len(times)
    assert len(times) >= 3
    assert set(runtime.batches) == {4}
    # Of 20 examples in batches of 4 there are 5.
    assert len(runtime.seen) == min(5, len(times))
    assert 0 < sum(times) < 10


def test_at_least_three_calls_are_timed_however_long_they_take() -> None:
    assert len(call_times(Slow(), (np.zeros((5, 3, 1)),), 1024, 0.0)) == 3


def test_each_sequence_is_timed_with_its_own_length() -> None:
    runtime, lengths = Slow(), np.arange(1, 6, dtype=np.int32)
    x = np.repeat(lengths, 15).reshape(5, 15, 1).astype(np.float32)
    call_times(runtime, (x, lengths), 4, 0.01)
    assert len(runtime.lengths) == len(runtime.batches)
    for given, asked in zip(runtime.given, runtime.lengths, strict=True):
        np.testing.assert_array_equal(given[:, 0, 0], asked)


def measured(name: str, seconds: float, **fields: Any) -> Measured:
    times = {batch: [seconds, 3 * seconds, seconds] for batch in BATCHES}
    given = {"load_seconds": 0.25, "bytes": 2048, "accuracy": 0.975, "peak_bytes": 3 << 20}
    return Measured(name, **{**given, **fields}, seconds=times)


def test_the_summary_is_of_the_calls() -> None:
    found = measured("onnx", 2e-6).summary()
    assert found["batches"]["64"]["p50_us"] == pytest.approx(2)
    # Nearly the slowest of three, by linear interpolation.
    assert found["batches"]["64"]["p99_us"] == pytest.approx(2 + 0.98 * 4)
    assert found["batches"]["64"]["examples_per_second"] == pytest.approx(32e6)
    assert found["batches"]["64"]["calls"] == 3
    json.dumps(found)


def test_the_table_has_a_line_for_each_and_ratios_to_onnx() -> None:
    own = measured("onnx", 2e-6)
    other = replace(measured("Keras predict", 5e-6), bytes=None, load_seconds=None)
    head, first, second = table([own, other]).splitlines()
    assert "batch 1,024: p50" in head
    assert first.split()[:3] == ["onnx", "2", "us"]
    assert "2.0 KB" in first
    assert first.endswith("97.50%")
    assert "KB" not in second
    assert ratios([own, other]).splitlines()[1].split()[-3:] == ["2.50x"] * 3
    assert ratios([other]) == ""


# --- the whole of it ---
@pytest.fixture(scope="module")
def output(
    small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Measured]]:
    """One real benchmark, as short as it can be, and the folder with what it wrote.

    One peer stands for all: `test_a_peer_computes_the_same_function` loads each of them.
    """
    folder = tmp_path_factory.mktemp("benchmark")
    found: list[list[Measured]] = []
    real = benchmark.benchmark

    def keep(*args: Any, **options: Any) -> list[Measured]:
        found.append(real(*args, **options))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "benchmark", keep)
        patch.setattr(peers, "installed", lambda: ["Keras predict"])
        argv = [small_bundle.path, "--rounds", "1", "--seconds", "0.01"]
        wanted = ["--json", folder / "found.json", "--picture", folder / "found.png"]
        assert main([str(argument) for argument in (*argv, *wanted)]) == 0
    return folder, found[0]


@pytest.mark.slow
def test_every_format_and_peer_is_measured(
    output: tuple[Path, list[Measured]], small_bundle: Bundle, small: SequenceData
) -> None:
    folder, found = output
    assert [each.name for each in found] == [*small_bundle.formats, "Keras predict"]
    written = json.loads((folder / "found.json").read_text())
    assert [each["name"] for each in written] == [each.name for each in found]
    for each in written:
        own = each["name"] in small_bundle.formats
        assert set(each["batches"]) == {"1", "64", "1024"}
        for batch in each["batches"].values():
            assert 0 < batch["p50_us"] <= batch["p99_us"]
            assert batch["calls"] >= 3
        assert each["bytes"] == (small_bundle.size(each["name"]) if own else None)
        assert (each["load_seconds"] is not None) == own
        # Python and NumPy alone are 30 MB; a number in other units would be far off.
        assert 30e6 < each["peak_bytes"] < 8e9
    # All are the same function, of 50 examples of which none is near a border.
    accuracies = {each["accuracy"] for each in written}
    assert max(accuracies) - min(accuracies) <= 1 / len(small.test.y)


@pytest.mark.slow
def test_tensorflow_is_not_in_the_memory_of_what_needs_none(
    output: tuple[Path, list[Measured]],
) -> None:
    peaks = {each.name: each.peak_bytes for each in output[1]}
    # TensorFlow takes 500 MB, and what these tests have loaded is even more.
    assert max(peaks["onnx"], peaks["tflite"]) < peaks["saved_model"] / 2


@pytest.mark.slow
def test_the_chart_is_a_picture(output: tuple[Path, list[Measured]]) -> None:
    with Image.open(output[0] / "found.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200


# --- what goes wrong ---
@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses the only peer, so that not all of them are loaded."""

    def choose(name: str) -> None:
        monkeypatch.setattr(peers, "installed", lambda: [name] if name else [])

    return choose


@pytest.fixture
def onnx_only(copy: Bundle) -> Bundle:
    """A bundle whose only format is the one that loads fastest."""
    kept = {k: v for k, v in copy.manifest.items() if k not in ("files", "layout", "checksum")}
    return sealed_anew(copy, {**kept, "formats": {"onnx": kept["formats"]["onnx"]}})


def sealed_anew(bundle: Bundle, manifest: dict[str, Any]) -> Bundle:
    """The bundle with another manifest, of the files as they are now."""
    report = bundle.verification_file.read_text()
    write_manifest(bundle.path, manifest)
    changed = Bundle.open(bundle.path)
    changed.write_verification(report)
    return changed


def test_a_worker_that_dies_is_named(onnx_only: Bundle, small: SequenceData) -> None:
    worker = Worker(onnx_only, small.test, "onnx", 1)
    worker.measure(1, 0.001)
    assert len(worker.measured.seconds[1]) >= 3
    os.kill(worker.process.pid or 0, signal.SIGKILL)
    worker.process.join()
    with pytest.raises(CheckFailed, match=r"^onnx: its process died$"):
        worker.measure(1, 0.001)
    with pytest.raises(CheckFailed, match=r"^onnx: its process died$"):
        worker.finish()


def test_a_worker_that_dies_is_one_line_and_exit_code_1(
    onnx_only: Bundle, only: Callable[[str], None], monkeypatch: pytest.MonkeyPatch,
    capsys: Capture, tmp_path: Path,
) -> None:  # fmt: skip
    only("")
    measure = Worker.measure

    def killed(worker: Worker, batch: int, seconds: float) -> None:
        os.kill(worker.process.pid or 0, signal.SIGKILL)
        worker.process.join()
        measure(worker, batch, seconds)

    monkeypatch.setattr(Worker, "measure", killed)
    monkeypatch.chdir(tmp_path)
    assert failure(main, [onnx_only.path], capsys) == "failed: onnx: its process died"
    assert not (tmp_path / "benchmark.png").exists()


def test_a_format_that_does_not_load_is_named(
    onnx_only: Bundle, only: Callable[[str], None], capsys: Capture
) -> None:
    only("")
    (onnx_only.path / "model.onnx").write_bytes(b"not a model")
    unsealed = ("files", "layout", "checksum")
    sealed_anew(onnx_only, {k: v for k, v in onnx_only.manifest.items() if k not in unsealed})
    assert failure(main, [onnx_only.path], capsys).startswith("failed: onnx: ")


def test_a_peer_that_cannot_run_the_model_is_left_out_and_said(
    onnx_only: Bundle, only: Callable[[str], None], tmp_path: Path, capsys: Capture
) -> None:
    # Of a name that nothing has, which is not found in the worker either.
    only("PyTorch 9")
    argv = [onnx_only.path, "--rounds", 1, "--seconds", 0.001, "--picture", tmp_path / "a.png"]
    assert main([str(argument) for argument in argv]) == 0
    out, err = capsys.readouterr()
    assert "left out: PyTorch 9: " in err
    assert out.splitlines()[1].startswith("onnx ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "0"], "bad threads; expected more than 0, got 0"),
        (["--threads", "-1"], "bad threads; expected more than 0, got -1"),
        (["--rounds", "0"], "bad rounds; expected more than 0, got 0"),
        (["--seconds", "0"], "bad seconds; expected more than 0, got 0.0"),
        (["--seconds", "nan"], "bad seconds; expected more than 0, got nan"),
        (["--rounds", "many"], "--rounds: invalid literal for int() with base 10: 'many'"),
        (["--round", "1"], "similar: --rounds"),
    ],
)
def test_bad_numbers_are_refused(
    argv: list[str], message: str, small_bundle: Bundle, capsys: Capture
) -> None:
    assert message in refusal(main, [small_bundle.path, *argv], capsys)


def test_a_damaged_bundle_is_not_measured(copy: Bundle, capsys: Capture) -> None:
    (copy.path / "model.onnx").write_bytes(b"")
    assert "the bundle is damaged: " in refusal(main, [copy.path], capsys)
    assert "not a bundle: nowhere" in refusal(main, ["nowhere"], capsys)
