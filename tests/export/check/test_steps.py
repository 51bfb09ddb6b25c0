"""What steps are asked catches every way in which a state can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from networks import SPEC, VARYING, of_length, random_network, raw_input, some_lengths
from oracle_runtime import OracleRuntime

from export import oracle
from export.check import steps as check_steps
from export.check.compare import Report
from export.check.steps import WITHOUT_RESET, StepFamily, answer_by_step, step_families
from export.formats.format import Run, StepRuntime
from export.formats.onnx import OnnxStep, write_step
from export.network import Network
from export.stream import State, Stream
from export.verify import step_rows, verify
from rnn_tf.data import Split
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import Cell

States = list[np.ndarray]
Answer = tuple[np.ndarray, States]
CHUNKED = ("random chunks", "1 sessions", "interleaved", "restored", "without reset")


def split_of(network: Network, examples: int = 40) -> Split:
    x = raw_input(examples, network.spec)
    lengths = some_lengths(examples, network.spec) if network.spec.varies else None
    y = oracle.probabilities(network, x, lengths).argmax(axis=-1).astype(np.int32)
    return Split(x, y, lengths)


@dataclass(frozen=True)
class Case:
    network: Network
    test: Split
    runtime: StepRuntime
    families: list[StepFamily]

    def broken(self, open_: Callable[[], StepRuntime]) -> list[str]:
        """What verification finds wrong with a step."""
        rows = step_rows("onnx", open_, self.families)
        return Report(rows, len(self.test.y)).failures()


def case_of(network: Network, folder: Path) -> Case:
    write_step(network, folder / "step.onnx")
    runtime = OnnxStep(folder / "step.onnx", network.spec)
    test = split_of(network)
    return Case(network, test, runtime, step_families(test, network))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two layers of an LSTM, whose four states could be exchanged."""
    return case_of(random_network("lstm", layers=2), tmp_path_factory.mktemp("lstm"))


# --- what is right passes ---
@pytest.mark.parametrize(
    ("cell", "spec"),
    [("simple_rnn", SPEC), ("lstm", VARYING), ("gru", replace(VARYING, answer="every_step"))],
)
def test_a_right_step_passes(
    cell: Cell, spec: SequenceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_steps, "WITHOUT_RESET", 300)
    case = case_of(random_network(cell, spec=spec), tmp_path)
    assert case.broken(lambda: case.runtime) == []


def test_a_format_is_broken_when_its_step_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of a step is part of the report of its format."""
    monkeypatch.setattr(check_steps, "WITHOUT_RESET", 300)
    case = case_of(random_network("simple_rnn"), tmp_path)
    right = OracleRuntime(case.network)
    wrong = Wrong(case.runtime, stale)
    report = verify(
        {"onnx": lambda: right}, right, case.network, case.test, steps={"onnx": lambda: wrong}
    )
    assert report.failures("keras") == []
    assert report.failures("onnx")
    assert all("onnx, step: " in line for line in report.failures())


def test_every_way_of_pushing_is_asked(case: Case) -> None:
    families = case.families
    assert [each.family.name.removeprefix("step: ") for each in families] == [
        "whole sequences", "frame by frame", "random chunks", "1 sessions", "2 sessions",
        "7 sessions", "64 sessions", "1000 sessions", "interleaved", "restored",
        "10,000 steps without reset",
    ]  # fmt: skip
    for each in families:
        times = np.zeros(each.exact.shape[:2], int)
        for push in each.pushes:
            steps = push.starts[:, None] + np.arange(push.steps)
            np.add.at(times, (push.rows[:, None], steps), 1)
        assert (times == 1).all(), each.family.name  # every frame, once
    sizes = {each.sessions for each in families}
    assert {1, 2, 7, 64, 1000} <= sizes
    by_name = {each.family.name: each for each in families}
    frames = by_name["step: frame by frame"]
    assert {push.steps for push in frames.pushes} == {1}
    chunks = {push.steps for push in by_name["step: random chunks"].pushes}
    assert len(chunks) > 1
    mixed = by_name["step: interleaved"]
    assert any(len(set(push.starts.tolist())) > 1 for push in mixed.pushes)
    assert sum(push.reopened for push in by_name["step: restored"].pushes) == 1


def test_a_long_sequence_is_asked_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_steps, "WITHOUT_RESET", 300)
    network = random_network("simple_rnn", spec=of_length(600))
    families = step_families(split_of(network, 60), network)
    for each in families:
        assert each.exact.shape[0] * each.exact.shape[1] <= check_steps.FRAMES
        assert len(each.pushes) <= 8 * check_steps.MOST_CALLS
    assert families[0].exact.shape == (check_steps.FRAMES // 600, 600, SPEC.classes)


def test_many_classes_are_asked_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_steps, "BATCH_BYTES", 2**22)
    labels = tuple(map(str, range(200)))
    network = random_network("simple_rnn", spec=replace(of_length(50), labels=labels))
    sizes = [each.exact.nbytes for each in step_families(split_of(network, 200), network)]
    # Without the bound it would be four times as much.
    assert 2**21 < max(sizes) <= 2**22


def test_ten_thousand_steps_are_as_near_as_ten_for_a_model_that_forgets(case: Case) -> None:
    """Rounding is handed on with the state, and forgotten with it: the limit does not grow."""
    first, *_, last = case.families
    assert last.exact.shape == (1, WITHOUT_RESET, SPEC.classes)
    assert last.limit <= 2 * first.limit
    got = answer_by_step(lambda: case.runtime, case.runtime, last)
    assert np.abs(got - last.exact).max() <= last.limit


def test_a_model_that_never_forgets_is_asked_as_long_as_float32_can_promise() -> None:
    """A state that doubles at every step: 3.4e38 is reached after 128 of them."""
    one = np.ones((1, 1), np.float32)
    network = random_network("simple_rnn", "linear", spec=replace(SPEC, features=1), units=1)
    (layer,) = network.layers
    forward = replace(
        layer.forward, kernel=one, recurrent_kernel=2 * one, bias=np.zeros(1, np.float32)
    )
    network = replace(
        network,
        spec=replace(SPEC, features=1, normalize=None),
        layers=(replace(layer, forward=forward),),
        dense_kernel=np.array([[1, -1, 0, 0]], np.float32),
    )
    *_, last = step_families(split_of(network), network)
    assert 70 <= last.exact.shape[1] <= 128 * 3 // 4
    assert last.family.name == f"step: {last.exact.shape[1]:,} steps without reset"


# --- what is wrong is caught ---
@dataclass
class Wrong:
    """A step that is right but for what `change` does with it."""

    right: StepRuntime
    change: Callable[[StepRuntime, np.ndarray, States], Answer]

    @property
    def units(self) -> tuple[int, ...]:
        return self.right.units

    def metadata(self) -> dict[str, str]:
        return dict(self.right.metadata())

    @property
    def spec(self) -> SequenceSpec:
        return self.right.spec

    def bind(self, sessions: int) -> Run:
        return self.run

    def run(self, frames: np.ndarray, states: Sequence[np.ndarray]) -> Answer:
        return self.change(self.right, frames, list(states))

    step = run


def wrong_input(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    """The state of each layer is given to the other."""
    return right.step(frames, [*states[2:], *states[:2]])


def h_and_c_swapped(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    return right.step(frames, [states[1], states[0], *states[2:]])


def only_c_is_kept(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    return right.step(frames, [np.zeros_like(states[0]), *states[1:]])


def never_fed_back(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    answer, _ = right.step(frames, states)
    return answer, [np.zeros_like(state) for state in states]


def stale(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    """The state before the call comes out of it."""
    answer, _ = right.step(frames, states)
    return answer, states


def last_frame_of_a_chunk_lost(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    answer, after = right.step(frames, states)
    if frames.shape[1] > 1:
        _, after = right.step(frames[:, :-1], states)
    return answer, after


def last_frame_of_a_chunk_read_twice(
    right: StepRuntime, frames: np.ndarray, states: States
) -> Answer:
    answer, after = right.step(frames, states)
    if frames.shape[1] > 1:
        _, after = right.step(frames[:, -1:], after)
    return answer, after


def of_another_session(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    """Batches of the size of a warp: the states of two neighbours are exchanged."""
    answer, after = right.step(frames, states)
    return answer, [np.roll(state, 1, axis=0) for state in after]


def rounded_to_half(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
    answer, after = right.step(frames, states)
    return answer, [state.astype(np.float16).astype(np.float32) for state in after]


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (wrong_input, ("frame by frame", *CHUNKED)),
        (h_and_c_swapped, ("frame by frame", *CHUNKED)),
        (only_c_is_kept, ("frame by frame", *CHUNKED)),
        (never_fed_back, ("frame by frame", *CHUNKED)),
        (stale, ("frame by frame", *CHUNKED)),
        (last_frame_of_a_chunk_lost, CHUNKED),
        (last_frame_of_a_chunk_read_twice, CHUNKED),
        (of_another_session, ("frame by frame", "2 sessions", "interleaved", "restored")),
        (rounded_to_half, ("frame by frame", *CHUNKED)),
    ],
)
def test_a_wrong_state_is_caught(
    change: Callable[[StepRuntime, np.ndarray, States], Answer],
    caught_by: tuple[str, ...],
    case: Case,
) -> None:
    found = case.broken(lambda: Wrong(case.runtime, change))
    for name in caught_by:
        assert any(f"{name}: |dp| from the oracle" in line for line in found), name
    # Pushed whole, the state is never fed back: nothing is wrong.
    assert not any("whole sequences" in line for line in found)
    if caught_by == CHUNKED:
        assert not any("frame by frame" in line for line in found)


def test_a_state_that_the_file_keeps_for_all_sessions_is_caught(case: Case) -> None:
    """What one session has said is what the next one goes on from."""
    kept: dict[str, States] = {}

    def shared(right: StepRuntime, frames: np.ndarray, states: States) -> Answer:
        last = kept.get("states", states)
        same = len(last[0]) == len(frames)
        answer, kept["states"] = right.step(frames, last if same else states)
        return answer, [state.copy() for state in kept["states"]]

    found = case.broken(lambda: Wrong(case.runtime, shared))
    assert any("interleaved: |dp| from the oracle" in line for line in found)
    assert any("1 sessions: |dp| from the oracle" in line for line in found)


def test_a_stream_that_forgets_to_reset_is_caught(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stream, "reset", lambda self, sessions=None: None)
    found = case.broken(lambda: case.runtime)
    assert any("interleaved" in line for line in found)


def test_a_stream_whose_sessions_share_a_row_is_caught(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Stream._rows

    def wrong(self: Stream, sessions: Sequence[int] | np.ndarray) -> np.ndarray:
        found: np.ndarray = rows(self, sessions) // 2
        return found

    monkeypatch.setattr(Stream, "_rows", wrong)
    found = case.broken(lambda: case.runtime)
    assert any("interleaved: |dp| from the oracle" in line for line in found)


def test_a_step_of_another_model_is_caught(case: Case, tmp_path: Path) -> None:
    """Whole sequences too: each weight is part of the last answer."""
    arrays = case.network.dense_bias.copy()
    arrays[1] += 0.001
    write_step(replace(case.network, dense_bias=arrays), tmp_path / "step.onnx")
    found = case.broken(lambda: OnnxStep(tmp_path / "step.onnx", SPEC))
    assert any("whole sequences: |dp| from the oracle" in line for line in found)


def test_a_restart_that_begins_at_zero_is_caught(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(state: State) -> State:
        return replace(state, arrays=tuple(np.zeros_like(each) for each in state.arrays))

    monkeypatch.setattr(check_steps, "_through_a_file", zeros)
    found = case.broken(lambda: case.runtime)
    assert {line.split(": ")[1] for line in found} == {"restored"}
