"""What the benchmarks print is what they measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from commands import Capture, refusal

from benchmarks import (
    accuracy,
    engines,
    export_time,
    frames,
    inference,
    larger_than_memory,
    lengths,
    scaling,
    shapes,
    small_data,
    streams,
    training,
    tuning,
)  # fmt: skip
from benchmarks.training import Way, epoch_operations, table
from export import peers
from export.benchmark import Measured
from export.bundle import Bundle
from export.publish import export_run
from rnn_tf import Run, TrainConfig, load
from rnn_tf.data import SequenceData
from rnn_tf.model.cells import Cell
from rnn_tf.streams.early import SHARES, EarlyResult, EarlyRule, EarlyScores
from rnn_tf.streams.resets import PolicyScores


def test_the_operations_of_an_epoch_are_those_of_its_matrix_products() -> None:
    # By hand: 28 steps, 28 -> 32 and 32 -> 32, twice more backward but for the input's gradient.
    forward = 28 * (28 * 32 + 32 * 32) + 32 * 10
    backward = 28 * (28 * 32 + 2 * 32 * 32) + 2 * 32 * 10
    assert epoch_operations() == 2 * 55_000 * (forward + backward)


@pytest.fixture
def rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 100 GFLOP/s, in place of measuring this one for a second."""
    for module in (training, shapes):
        monkeypatch.setattr(module, "matrix_product_rate", lambda: 1e11)


def test_the_table_shows_medians_and_ratios_to_the_first() -> None:
    slow = Way("slow", lambda _: ([3.0, 2.0, 4.0, 2.0], 0.5))
    fast = Way("fast", lambda _: ([1.0, 0.5, 0.25, 0.5], 0.75))
    for way in (slow, fast):
        way.measure(4)
    _, first, second, *rest = table([slow, fast], 1e11).splitlines()
    assert first.split()[:4] == ["slow", "2.000", "s", "(2.000-4.000)"]
    assert second.split()[:5] == ["fast", "0.500", "s", "(0.250-0.500)", "4.0x"]
    assert second.split()[5:10] == ["1.00", "s", "0.0", "s", "(0.0-0.0)"]
    assert second.endswith("75.00%")
    assert rest[1].startswith("arithmetic floor: 15.1 GFLOP an epoch at 100 GFLOP/s ")
    assert rest[2] == "slow: 13.3 times the floor"


def test_pytorch_is_compared_with_the_loop_of_its_users() -> None:
    loop = Way(training.PLAIN_TORCH, lambda _: ([3.0, 2.0, 2.0], 0.5))
    ours = Way("rnn_tf --backend torch, best", lambda _: ([1.0, 0.5, 0.5], 0.75))
    for way in (loop, ours):
        way.measure(3)
    line = table([loop, ours], 1e11).splitlines()[-1]
    assert line.startswith("rnn_tf --backend torch, best: an epoch 4.0 times, the command ")


@pytest.fixture
def few_digits(mnist: SequenceData) -> SequenceData:
    """5,000 digits a split, of 55,000: what plain trainings read here."""
    few = (split.take(slice(5_000)) for split in (mnist.train, mnist.valid, mnist.test))
    return SequenceData(mnist.spec, *few)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch's threads as they were, for a training that sets them to 1: more only wait here."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.torch
@pytest.mark.usefixtures("one_thread")
def test_plain_stacks_in_pytorch_learn_as_ours_do(
    few_digits: SequenceData, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from benchmarks import plain_torch_arrays

    monkeypatch.setattr(plain_torch_arrays, "load", lambda _: few_digits)
    plain_torch_arrays.main(3, "simple_rnn", 2, 1, 1)  # two layers, one direction, one thread
    seconds, accuracy = said(capsys)
    assert len(seconds) == 3
    assert accuracy > 0.3  # chance is 10 %


@pytest.mark.slow
@pytest.mark.usefixtures("rate")
def test_shapes_are_timed_in_every_way_that_is_installed(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "found.json"
    shape = ["--cells", "simple_rnn", "--units", "256", "--batches", "1", "--sequences", "rows"]
    fewer = ["--without", "PyTorch, all threads"]
    assert shapes.main([*shape, *fewer, "--rounds", "2", "--json", str(file)]) == 0
    (found,) = json.loads(file.read_text())
    assert {"rnn_tf", "plain Keras"} <= set(found["seconds"])
    assert "PyTorch, all threads" not in found["seconds"]
    for seconds in found["seconds"].values():
        assert len(seconds) == 2
        assert min(seconds) > 0
    table = capsys.readouterr().out.splitlines()
    assert table[-1].startswith("| simple_rnn 256, batch 1, rows | ")


def test_only_a_peer_can_be_left_out(capsys: Capture) -> None:
    assert shapes.main(["--without", "rnn_tf"]) == 2
    assert "expected some of plain Keras, PyTorch, 1 thread" in capsys.readouterr().err


def test_a_shape_is_compared_with_its_fastest_peer() -> None:
    shape = shapes.Shape("lstm", 128, 64, "rows")
    timed = shapes.Timed(shape, {"rnn_tf": 3.5}, {"rnn_tf": [1.0, 3.0, 2.0], "plain Keras": [8.0]})
    timed.seconds["JAX"] = [5.0]
    # At a rate at which the products alone would take a second.
    on_cpu, rate = shapes.ON_CPU, shape.operations
    row = dict(zip(shapes.head(on_cpu, rate), shapes.row(timed, on_cpu, rate), strict=True))
    assert (row["rnn_tf"], row["plain Keras"], row["JAX"]) == ("2.000 s", "4.00x", "2.50x")
    assert (row["PyTorch, 1 thread"], row["fastest peer"]) == ("-", "2.50x")
    assert (row["arithmetic"], row["first epoch"]) == ("2.0x", "+1.5 s")
    on_gpu = shapes.ON_GPU
    row = dict(zip(shapes.head(on_gpu, None), shapes.row(timed, on_gpu, None), strict=True))
    assert (row["JAX"], row["PyTorch, arrays"]) == ("2.50x", "-")
    assert "arithmetic" not in row


def test_shapes_on_a_gpu_need_one(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = refusal(shapes.main, ["--gpu"], capsys)
    assert "--gpu needs a PyTorch that finds a GPU of CUDA" in said


def test_forms_are_compared_with_the_one_that_is_chosen(capsys: Capture) -> None:
    assert "fastest form" in shapes.head(shapes.IN_FORMS, None)
    assert list(shapes.IN_FORMS.ways) == ["rnn_tf", "whole", "shared", "both"]
    assert "--forms are those of a CPU" in refusal(shapes.main, ["--forms", "--gpu"], capsys)


def test_our_other_ways_are_no_peers() -> None:
    seconds = {"rnn_tf": [1.0], "rnn_tf, mixed_float16": [0.5], "JAX": [2.0]}
    assert shapes.Timed(shapes.Shape("gru", 32, 64, "rows"), {}, seconds).ahead == 2


def test_stacks_are_compared_for_every_cell_and_shape(tmp_path: Path) -> None:
    groups = training.ways_to_train_stacks(tmp_path)
    assert len(groups) == 6
    for title, ways in groups.items():
        assert ways[0].name == f"plain Keras fit, {title}"
        assert ways[1].name == f"rnn_tf, {title}"


@pytest.mark.torch
def test_gated_cells_are_compared_with_the_loop_of_the_same_layer(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
    from benchmarks.plain_torch import Classifier

    groups = training.ways_to_train_gated(tmp_path)
    assert list(groups) == ["LSTM", "GRU"]
    for layer, (loop, ours) in groups.items():
        assert loop.name == f"plain PyTorch loop, {layer}"
        assert ours.name == f"rnn_tf --backend torch, {layer}"
        model = Classifier(layer)
        assert type(model.recurrent).__name__ == layer
        assert model(torch.zeros(2, 28, 28)).shape == (2, 10)


def said(capsys: Capture) -> tuple[list[float], float]:
    """What a plain training prints: the seconds of each epoch, and its accuracy."""
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found["epochs"], found["accuracy"]


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lengths, "EXAMPLES", {"train": 2000, "valid": 100, "test": 500})
    return str(lengths.write(tmp_path / "varying.npz"))


@pytest.mark.slow
def test_plain_keras_learns_from_sequences_of_different_lengths(
    recordings: str, capsys: Capture
) -> None:
    from benchmarks import plain_keras_masking

    plain_keras_masking.main(6, recordings, "gru")
    seconds, accuracy = said(capsys)
    assert len(seconds) == 6
    assert accuracy > 0.2  # chance is 1 in 12


@pytest.mark.torch
@pytest.mark.usefixtures("one_thread")
def test_plain_pytorch_learns_from_sequences_of_different_lengths(
    recordings: str, capsys: Capture
) -> None:
    from benchmarks import plain_torch_packed

    plain_torch_packed.main(6, recordings, "gru", 1)
    seconds, accuracy = said(capsys)
    assert len(seconds) == 6
    assert accuracy > 0.2  # chance is 1 in 12


def test_lengths_are_compared_with_one_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "EXAMPLES", {"train": 20, "valid": 2, "test": 2})
    groups = training.ways_to_train_lengths(tmp_path)
    assert list(groups) == ["GRU, 7 to 29 steps", "SimpleRNN, 7 to 29 steps"]
    for title, ways in groups.items():
        cell = title.split(",")[0]
        assert [way.name for way in ways[:4]] == [
            f"plain Keras fit with Masking, {title}", f"rnn_tf, {title}",
            f"rnn_tf, {cell}, 29 steps each", f"rnn_tf, {cell}, 18 steps each",
        ]  # fmt: skip
    with np.load(tmp_path / "varying.npz") as arrays:
        assert arrays["x_train"].shape == (20, 29, 12)
        assert arrays["lengths_train"].min() >= 7
    with np.load(tmp_path / "18.npz") as arrays:
        assert arrays["x_train"].shape == (20, 18, 12)
        assert "lengths_train" not in arrays


def test_answers_at_every_step_are_compared_with_plain_keras(tmp_path: Path) -> None:
    groups = training.ways_to_train_every_step(tmp_path)
    titles = [f"{cell}, an answer at every step" for cell in ("GRU", "SimpleRNN")]
    assert list(groups) == titles
    for title in titles:
        names = [way.name for way in groups[title]]
        assert names[:2] == [f"plain Keras fit, {title}", f"rnn_tf, tutorial preset, {title}"]


@pytest.mark.slow
def test_plain_stacks_answer_at_every_step(
    few_digits: SequenceData, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from benchmarks import plain_keras

    monkeypatch.setattr(plain_keras, "load", lambda _: few_digits)
    plain_keras.main(2, "simple_rnn", 2, 1, "every_step")
    seconds, accuracy = said(capsys)
    assert len(seconds) == 2
    # Over all rows of a digit, the first ones too; chance is 10 %.
    assert 0.15 < accuracy < 0.8


@pytest.mark.slow
def test_training_is_timed_as_a_user_runs_it(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    base = training.ways_to_train(tmp_path)[0]
    assert base.name == "plain Keras fit on arrays"
    small = Way("rnn_tf", training._ours(tmp_path, "tutorial", "--dataset", str(small_npz)))
    monkeypatch.setattr(training, "ways_to_train", lambda folder: [small])
    found, chart = tmp_path / "found.json", tmp_path / "chart.png"
    argv = ["--rounds", "1", "--epochs", "9", "--json", str(found), "--chart", str(chart)]
    assert training.main(argv) == 0
    (ours,) = json.loads(found.read_text())
    assert len(ours["steady"]) == 8
    assert ours["command"][0] > ours["first"][0] + sum(ours["steady"])
    assert ours["accuracy"][0] > 0.5  # chance: 0.33
    out = capsys.readouterr().out
    assert f"  {ours['accuracy'][0]:7.2%}\n" in out
    assert f"chart  {chart}" in out
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_accuracy_table_has_a_row_a_recipe(run: Run) -> None:
    found = {"one": [{**run.metrics, "epoch_seconds": 1.25}] * 2}
    _, row = accuracy.table(found).splitlines()
    assert f"{run.metrics['test']['accuracy']:.2%}" in row
    assert row.split()[1] == "2,282"
    assert row.endswith("1.25")
    assert load("mnist").test.y.size == run.metrics["test"]["examples"]


def test_the_search_table_shows_trials_an_hour_and_memory() -> None:
    mib = 2**20
    slow = tuning.Way("slow", [40.0, 60.0, 90.0, 120.0], [100 * mib, 150 * mib, 200 * mib], 0.9)
    fast = tuning.Way("fast", [10.0, 14.0, 18.0, 22.0], [300 * mib] * 3, 0.95)
    _, first, second = tuning.table([slow, fast]).splitlines()
    assert first.split() == [
        "slow",
        "120",
        "1.0x",
        "30.0",
        "s",
        "1.0x",
        "100,",
        "150,",
        "200",
        "90.00%",
    ]
    assert second.split() == [
        "fast",
        "655",
        "5.5x",
        "4.0",
        "s",
        "7.5x",
        "300,",
        "300,",
        "300",
        "95.00%",
    ]


def test_a_search_to_time_has_a_later_trial(capsys: pytest.CaptureFixture[str]) -> None:
    assert "bad trials; expected a whole number >= 2" in refusal(
        tuning.main, ["--trials", "1"], capsys
    )


# --- small data ---
def test_the_small_data_table_has_means_ranges_and_medians() -> None:
    results = [small_data.Result(*each) for each in ((0.5, 9, 3.0), (1.0, 9, 1.0), (0.9, 9, 2.0))]
    found = {"digits": {"ours": results}}
    _, row, note = small_data.text(found, {"theirs": "not installed"}).splitlines()
    assert row.split() == ["digits", "ours", "80.00%", "(50.00%-100.00%)", "9", "2.00"]
    assert note == "left out: theirs: not installed"
    assert "| digits | ours | 80.00% (50.00%-100.00%) | 9 | 2.00 |" in small_data.markdown(
        found, {}
    )


def test_what_learns_without_a_sequence_is_given_all_of_it(
    varying: SequenceData, small: SequenceData
) -> None:
    for data in (varying, small):
        x, y = small_data.whole_training(data)
        assert len(x) == len(y) == len(data.train.y) + len(data.valid.y)
        for standardised in (False, True):
            result = small_data.train_logistic(standardised, data, seed=1)
            assert result.parameters == 3 * (data.spec.longest * data.spec.features + 1)
            assert result.accuracy > 0.5  # chance: 0.33


@pytest.mark.slow
def test_small_data_are_measured_as_the_command_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The command on digits; one cell, for some epochs, and what is not there is said."""
    ways = {
        "ours": lambda data, seed: small_data.train_ours(TrainConfig(epochs=3), data, seed),
        "logistic": partial(small_data.train_logistic, False),
    }
    monkeypatch.setattr(small_data, "all_ways", lambda: (ways, {"sktime": "not installed"}))
    found = tmp_path / "found.json"
    argv = ["--data", tmp_path, "--sets", "digits", "BasicMotions", "--seeds", "1", "--json", found]
    assert small_data.main([str(each) for each in argv]) == 0
    out = capsys.readouterr().out
    assert "left out: sktime: not installed; BasicMotions: no BasicMotions_TRAIN.ts in " in out
    digits = json.loads(found.read_text())["found"]["digits"]
    assert digits["ours"][0]["parameters"] == 8 * 32 + 32 * 32 + 32 + 330
    assert digits["ours"][0]["accuracy"] > 0.5
    # 327 of 360, with scikit-learn alone; other versions of its solver may differ by some.
    assert digits["logistic"][0]["accuracy"] == pytest.approx(0.908, abs=0.01)
    # Asked for a seed more, it keeps what it has measured.
    ways["ours"] = lambda data, seed: small_data.Result(seed / 10, 9, 1.0)
    assert small_data.main([*map(str, argv[:-3]), "2", *map(str, argv[-2:])]) == 0
    both = json.loads(found.read_text())["found"]["digits"]
    assert both["ours"] == [*digits["ours"], {"accuracy": 0.2, "parameters": 9, "seconds": 1.0}]
    assert both["logistic"][0] == digits["logistic"][0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sets", "digit"], "unknown set 'digit'; expected some of JapaneseVowels, "),
        (["--seeds", "0"], "bad seeds; expected a whole number >= 1, got 0"),
        (["--sets", "BasicMotions", "--data", "nowhere"], "no data; got BasicMotions: no Basic"),
    ],
)
def test_small_data_refuses_what_is_not_there(
    argv: list[object], message: str, capsys: Capture
) -> None:
    assert message in refusal(small_data.main, argv, capsys)


def measured(name: str, size: int | None, *seconds: float) -> Measured:
    """One whose rounds took so long at batch 1, and as much for each example of a larger batch."""
    medians = {batch: [batch * each for each in seconds] for batch in (1, 64, 1024)}
    return Measured(name, None, size, 0.5, medians=medians, seconds=medians)


def test_the_table_compares_medians_of_rounds_with_the_best_of_ours() -> None:
    found = inference.Found(
        "model",
        [
            measured("onnx", 10, 2e-6, 9e-6, 2e-6),  # a round that was disturbed
            measured("tflite", 10, 4e-6, 4e-6, 4e-6),
            measured("peer", None, 1e-6, 1e-6, 1e-6),
        ],
        {"other": "it has no compiler"},
    )
    head, *rows, last = inference.text(found).splitlines()
    assert head.split("  ")[0] == "model"
    onnx, tflite, peer = (row.split() for row in rows)
    assert onnx[:4] == ["onnx", "2", "us", "(2-9)"]
    assert onnx[4:6] == ["500,000", "(111,111-500,000)"]
    assert onnx[-3:] == ["1.00"] * 3
    assert tflite[-3:] == ["2.00"] * 3
    assert peer[-3:] == ["0.50"] * 3
    assert last == "left out: other: it has no compiler"
    first, rule, *lines = inference.markdown(found).splitlines()
    assert first.startswith("| model | batch 1 |")
    assert set(rule) <= set("|- ")
    assert lines[0].split(" | ")[1] == "2 us (2-9)"
    assert lines[-1] == "Left out: other: it has no compiler"


def test_the_table_of_stacks_has_a_row_for_each_model() -> None:
    peer = measured("ONNX by Keras", None, 4e-6, 5e-6, 90e-6)
    models = ("2 layers of gru(32), tanh", "lstm(32), both directions, tanh")
    found = [inference.Found(name, [measured("onnx", 9, 2e-6), peer], {}) for name in models]
    head, _, *rows = inference.of_onnx(found).splitlines()
    assert head.startswith(
        "|  | batch 1 | batch 64 | batch 1,024 | ONNX by PyTorch | ONNX by Keras"
    )
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in models]
    ours = "2 us | 128 us | 2,048 us"
    assert (
        rows[0].split(" | ", 1)[1]
        == f"{ours} | -, -, - | 2.50x, 2.50x, 2.50x | -, -, - | -, -, - |"
    )


def untrained(
    cell: Cell, small_npz: Path, small: SequenceData, folder: Path, *formats: str
) -> Bundle:
    """What is measured of a bundle is not what it has learned."""
    from rnn_tf.model.classifier import build_model

    config, data = TrainConfig(str(small_npz), cell=cell, units=4), small.normalized("standard")
    run = Run.create(folder / "run", config, data.spec)
    run.save_model(build_model(config, data.spec))
    run.save_metrics({})
    return export_run(run, data=data, formats=formats)


@pytest.mark.slow
def test_inference_is_measured_beside_its_peers(
    small_npz: Path, small: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:  # fmt: skip
    """The command on a small model; of the peers one that runs and one that cannot."""
    bundle = untrained("simple_rnn", small_npz, small, tmp_path, "onnx")
    # The worker has neither under this name.
    some = {"Keras tf.function": peers.KerasFunction, "PyTorch 9": peers.TorchEager}
    monkeypatch.setattr(peers, "PEERS", some)
    few = {name: frames.WAYS[name] for name in ("onnx", "ONNX by hand")}
    monkeypatch.setattr(frames, "WAYS", few)
    json_file, chart = tmp_path / "found.json", tmp_path / "found.png"
    few_calls = ("--rounds", "2", "--seconds", "0.001")
    argv = [bundle.path, *few_calls, "--json", json_file, "--chart", chart]
    assert inference.main([str(each) for each in argv]) == 0
    out = capsys.readouterr().out
    (found,) = json.loads(json_file.read_text())
    assert [each["name"] for each in found["measured"]] == ["onnx", "Keras tf.function"]
    assert list(found["left_out"]) == ["PyTorch 9"]
    assert "left out: PyTorch 9: " in out
    for each in found["measured"]:
        for batch in each["batches"].values():
            assert len(batch["rounds_us"]) == 2
            assert min(batch["rounds_us"]) > 0
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--models", "rnn"], "unknown model 'rnn'; expected some of best, tutorial, lstm, gru"),
        (["--rounds", "0"], "bad rounds; expected more than 0, got 0"),
        (["nowhere"], "not a bundle: nowhere"),
    ],
)
def test_inference_refuses_what_it_cannot_measure(
    argv: list[object], message: str, capsys: Capture
) -> None:
    assert message in refusal(inference.main, argv, capsys)


# --- engines ---
def test_an_engine_is_held_against_the_formulas(tmp_path: Path) -> None:
    engine = engines.Engine("onnxruntime", Path(sys.executable))
    network = engines.network("gru", "elu", 5, 2, True)
    version, difference = engines.ask(engine, network, tmp_path)
    assert version == onnxruntime.__version__
    assert isinstance(difference, float)
    assert difference <= engines.MOST_DIFFERENCE


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("classify = lambda x: numpy.full((len(x), 3), 1 / 3)", pytest.approx(0.3, abs=0.3)),
        ("raise SystemExit('no such operator')", "no such operator"),
    ],
)
def test_an_engine_that_is_wrong_or_refuses_is_seen(
    code: str, found: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.ENGINES, "mine", f"version = '1'\n{code}")
    engine = engines.Engine("mine", Path(sys.executable))
    _, difference = engines.ask(engine, engines.network("lstm", "tanh", 5, 1, False), tmp_path)
    assert difference == found
    assert not (isinstance(difference, float) and difference <= engines.MOST_DIFFERENCE)


# --- streams ---
def test_pulses_are_counted_from_the_beginning_of_a_sequence() -> None:
    data = streams.generated(streams.counting, streams.counting)
    x, y = data.train.x, data.train.y
    assert x.shape == (2_000, 40, 2)
    counts = np.minimum(np.cumsum(x[..., 0] > 0.5, axis=1), 3)
    assert (counts == y).mean() > 0.999  # noise of 0.1 seldom looks like a pulse
    assert (x[:, 0, 1] > 0.5).all()
    assert (x[:, 1:, 1] < 0.6).all()


def test_windows_have_labels_from_their_first_beginning_on() -> None:
    data = streams.generated(streams.windows, streams.counting)
    x, y = data.train.x, data.train.y
    assert (x.shape, data.test.x.shape) == ((2_000, 80, 2), (400, 80, 2))
    begun = np.maximum.accumulate(x[..., 1] > 0.5, axis=1)
    np.testing.assert_array_equal(y >= 0, begun)
    assert (begun[:, 0]).mean() < 0.1  # they begin anywhere
    # The test is of whole sequences, which are shorter.
    assert data.test.lengths is not None
    assert set(data.test.lengths.tolist()) == {40}
    assert (data.test.y[:, :40] >= 0).all()


def test_tables_of_streams_say_what_was_found() -> None:
    def scores(policy: str, accuracy: float, largest: float) -> PolicyScores:
        return PolicyScores(policy, 0, accuracy, accuracy / 2, None, largest, np.zeros(3))

    rows = [scores("never", 0.1, np.inf), scores("at each sequence", 0.9, 2.0)]
    rows.append(scores("every 28 steps", 0.5, 3.0))
    *_, line = streams.resets_table({"a model": rows}).splitlines()
    assert line == "| a model | 10.0%, 5.0% | 90.0%, 45.0% | 50.0%, 25.0% | overflows |"
    along = {percent: percent / 200 for percent in SHARES}
    early = EarlyScores(0.91, 10.0, 0.357, 100)
    found = EarlyResult(EarlyRule(0.8, 0.9), early, early, {"valid": along, "test": along})
    first, second = streams.early_table({"a model": [found]}).split("\n\n")
    assert first.splitlines()[-1].startswith("| a model | 5.0% | 10.0% | ")
    assert second.splitlines()[-1] == "| a model | 90% | 0.8000 | 10.0 (36%) | 91.00% |"


# --- a frame at a time ---
def test_a_frame_is_compared_with_the_faster_of_our_formats() -> None:
    timed = [
        frames.Timed("onnx", {1: [2e-6, 1e-6, 3e-6], 64: [4e-6]}),
        frames.Timed("tflite", {1: [4e-6], 64: [1e-6]}),
        frames.Timed("PyTorch eager", {1: [6e-6], 64: [3e-6]}),
    ]
    assert frames.markdown("gru(4)", timed).splitlines() == [
        "| gru(4): one frame | 1 session | 64 sessions | x at 1 | x at 64 |",
        "| --- | --- | --- | --- | --- |",
        "| onnx | 2.0 us | 4.0 us | 1.00 | 4.00 |",
        "| tflite | 4.0 us | 1.0 us | 2.00 | 1.00 |",
        "| PyTorch eager | 6.0 us | 3.0 us | 3.00 | 3.00 |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_every_way_of_a_frame_says_the_same(
    cell: Cell, small_npz: Path, small: SequenceData, tmp_path: Path
) -> None:
    """`frames.compare` asks each in a process of its own, and refuses ways that differ."""
    bundle = untrained(cell, small_npz, small, tmp_path, "onnx", "tflite")
    x = small.test.x[:3]
    said = {}
    for name in frames.WAYS:
        if name == "PyTorch compiled" or not frames._can_run(name):
            continue
        push, reset = frames.WAYS[name][0](bundle, len(x))
        for _ in range(2):  # the second time as if there had been no first
            reset()
            found = [np.reshape(push(x[:, t : t + 1]), (3, -1)) for t in range(x.shape[1])]
        said[name] = np.stack(found)
    assert len(said) >= 5
    for name, answers in said.items():
        assert np.abs(answers - said["onnx"]).max() <= frames.NEARLY, name


# --- larger than memory ---
def test_the_same_examples_from_memory_and_from_shards_are_compared(mnist: SequenceData) -> None:
    limited = larger_than_memory.Limited(5 * 10**9, 2**31, 2**30, 6_000_000, 40.0)
    compared = larger_than_memory.Compared(300_000, [2.0, 2.5, 2.0], [2.2, 2.4, 2.0], 0.5)
    lines = larger_than_memory.as_text(limited, compared).splitlines()
    assert lines[0] == (
        "6,000,000 sequences of 5.0 GB, limit 2 GiB: peak resident 1.00 GiB, 40.0 s an epoch, "
        "150,000 sequences/s."
    )
    assert "| trained from memory | 2.00 s (2.00-2.50) | 150,000 |" in lines
    assert "| only read from shards | 0.50 s | 600,000 |" in lines
    assert lines[-1] == "From shards an epoch takes 1.10 times as long."
    made = larger_than_memory.digits(60_000)
    assert made.train.x.shape == (60_000, 28, 28)
    row = made.train.x.rows[59_999]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(made.train.x[59_990:][-1], mnist.train.x[row])
    assert made.train.y[-1] == mnist.train.y[row]


def test_scaling_is_worked_out_from_step_message_and_network() -> None:
    assert [scaling.parameters(units) for units in (32, 1_396)] == [2_282, 2_003_270]
    # By hand: a quarter of a second, and 6 hops of 10 ms with 100 of 400 bytes each.
    step = scaling.Step(1.0, message=400, hop=0.01)
    assert step.of(4, bandwidth=1_000) == pytest.approx(0.25 + 6 * (0.01 + 0.1))
    assert scaling.Step(1e-4, 400, 0.01).fastest(1e9) == 1
    assert scaling.Step(1e4, 400, 0.01).fastest(1e9) == scaling.MOST_WORKERS
    assert scaling.row(32, scaling.Step(1e-4, 400, 0.01), "measured")[3:] == ["1: never pays"] * 2


def test_a_phase_of_an_export_ends_where_the_next_begins() -> None:
    said = [
        (2.0, "writing tflite\n"),
        (2.5, "writing saved_model\n"),
        (3.0, "verifying: keras and the formulas in float64\n"),
        (4.5, "verifying: tflite\n"),
        (4.6, "verifying: saved_model\n"),
    ]
    assert export_time.phases(said, 5.5) == {
        "start, data": 2.0, "files": 1.0, "Keras, formulas": 1.5, "formats": 1.0,
    }  # fmt: skip
    assert export_time.phases(said[2:], 5.5) == {
        "start, data": 3.0, "Keras, formulas": 1.5, "formats": 1.0,
    }  # fmt: skip


def test_the_table_of_exports_shows_medians_and_what_was_gained() -> None:
    rounds = [{"start, data": start, "files": 1.0} for start in (3.0, 1.0, 2.0)]
    assert export_time.row("default", "export", "this version", rounds, 6.0) == [
        "default", "export", "this version", "2.00", "1.00", "", "", "3.00 s", "2.00x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "build"), [("small", "build_tutorial"), ("full", "build_network")]
)
def test_the_plain_search_declares_the_same_space_in_the_same_order(space: str, build: str) -> None:
    """KerasTuner draws in the order of declaration: then trials are the same."""
    import keras_tuner

    from benchmarks import plain_tuner

    hp = keras_tuner.HyperParameters()
    getattr(plain_tuner, build)(hp)
    declared = tuning.SPACES[space]
    assert [each.name for each in hp.space] == list(declared)
    for each in hp.space:
        config, bounds = each.get_config(), declared[each.name]
        if isinstance(bounds, dict):
            own = (config["min_value"], config["max_value"], config["sampling"])
            assert own == (bounds["low"], bounds["high"], bounds["sampling"])
        else:
            assert config.get("values", [False, True]) == bounds
