"""KerasTuner's oracles, which choose what to try next, made to survive a kill at any moment.

KerasTuner keeps its state in several files, written in place; a kill between two of them leaves
a trial that ended and did not. Here all of it is one file, replaced whole after each step. What
KerasTuner forgets to save, the order of a grid and the random state of a Bayesian search, is in
it too.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import keras_tuner
import numpy as np
from keras_tuner.engine import trial as trials

from rnn_tf.config import Objective
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.writing import write_text
from rnn_tf.startup import xla_flags

Tuner = Literal["bayesian", "hyperband", "random", "grid"]
F = TypeVar("F", bound=Callable[..., Any])

# The value of a trial in which a worker says why it failed: KerasTuner's messages to the chief have
# no place for a reason, and it passes notes of its own in such values.
REASON = "tuner/reason"
# What a worker asks the chief: which search is this, and does XLA compile loops whole in it?
# And what it says: I am alive.
SETTINGS, ALIVE, WHOLE_LOOPS = "settings", "alive", "whole loops"


# One call at a time, from whatever thread.
_synchronized: Callable[[F], F] = keras_tuner.synchronized


def objective_of(name: Objective) -> keras_tuner.Objective:
    """What KerasTuner compares trials by: a score on the validation split, and its direction."""
    return keras_tuner.Objective(f"val_{name}", "min" if name == "loss" else "max")


class Durable(keras_tuner.Oracle):
    """What the four oracles have in common: one state file, a time limit, news of each trial."""

    def __init__(
        self, *, file: Path, spec: SequenceSpec, objective: Objective, **options: Any
    ) -> None:
        super().__init__(
            objective=objective_of(objective),
            allow_new_entries=False,
            tune_new_entries=False,
            # However many fail in a row, the search goes on.
            max_consecutive_failed_trials=None,
            **options,
        )
        self.file = file
        self.spec = spec  # of the data, from which the size of a model follows
        self.verbose = 0
        self.ongoing_trials: dict[str, trials.Trial] = {}  # worker -> its trial
        self.until = float("inf")  # time.monotonic() after which no trial begins
        self.on_change: Callable[[], None] = lambda: None
        self.settings = ""  # JSON, for workers on other machines
        self.workers: dict[str, str] = {}  # trial -> the worker that it was given last
        self.seen: dict[str, float] = {}  # worker -> time.monotonic() of its last sign of life
        self.error: Exception | None = None
        self._in_step = False

    @_synchronized
    def create_trial(self, tuner_id: str) -> trials.Trial:
        over = time.monotonic() >= self.until
        if over and tuner_id not in self.ongoing_trials:
            return trials.Trial(self.get_space(), trial_id="", status="STOPPED")
        self.seen[tuner_id] = time.monotonic()
        with self._step():
            trial = super().create_trial(tuner_id)
            if trial.status == trials.TrialStatus.RUNNING:
                self.workers[trial.trial_id] = tuner_id
        return trial

    @_synchronized
    def end_trial(self, trial: trials.Trial) -> None:
        if trial.trial_id in self.end_order:
            return  # by the worker that was given it after this one had been silent for long
        known = self.trials[trial.trial_id]
        reason = trial.hyperparameters.values.pop(REASON, None)
        # What comes from a worker has been rounded on the way.
        trial.hyperparameters = known.hyperparameters
        trial.message = reason or (trial.message or "").strip().rpartition("\n")[2]
        with self._step():
            super().end_trial(trial)

    @_synchronized
    def requeue(self, tuner_id: str) -> None:
        """Give the trial of a worker that is gone to the next that asks."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue.append(trial.trial_id)

    def give_up(self, trial: trials.Trial, reason: str) -> None:
        """End a trial whose worker cannot do so any more."""
        trial.status = trials.TrialStatus.FAILED
        trial.hyperparameters.values[REASON] = reason
        self.end_trial(trial)

    def get_trial(self, trial_id: str) -> trials.Trial:
        """A trial; or the answer to another question of a worker: KerasTuner has no call for it."""
        question, _, worker = trial_id.partition(":")
        if question == ALIVE:
            self.seen[worker] = time.monotonic()
        if question not in (ALIVE, SETTINGS):
            found: trials.Trial = super().get_trial(trial_id)
            return found
        answer = keras_tuner.HyperParameters()
        answer.values[SETTINGS] = self.settings
        answer.values[WHOLE_LOOPS] = xla_flags.are_in_effect()
        return trials.Trial(answer, trial_id=trial_id)

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        """Save once, when all that belongs together has happened."""
        self._in_step = True
        try:
            yield
            self._in_step = False
            self.save()
            self.on_change()
        except Exception as error:
            # KerasTuner does not release its lock then: whoever waits for it must know.
            self.error = error
            raise
        finally:
            self._in_step = False

    def save(self) -> None:
        if not self._in_step:
            write_text(self.file, json.dumps(self.get_state(), indent=1))

    def _save_trial(self, trial: trials.Trial) -> None:
        """Do nothing: all trials are in the one file."""

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        state["tried_so_far"].sort()  # a set: the same state is the same file
        state["workers"] = self.workers
        saved = {name: trial.get_state() for name, trial in sorted(self.trials.items())}
        return {**state, "trials": saved}

    def set_state(self, state: dict[str, Any]) -> None:
        self.trials = {
            name: trials.Trial.from_state(saved) for name, saved in state["trials"].items()
        }
        self.workers = state["workers"]
        super().set_state(state)

    def reload(self) -> None:
        """Take over the state in the file. Raises `InputError` when it is damaged."""
        try:
            self.set_state(json.loads(self.file.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            finished = len(list(self.file.parent.glob("trial_*/metrics.json")))
            raise InputError(
                f"the state of the search is damaged: {self.file}",
                got=f"{type(error).__name__}: {error}",
                fix=f"Delete it and go on with --resume: the {finished} finished trials are found "
                "again in their folders, and not run again.",
            ) from error
        begun = [t.trial_id for t in self.ongoing_trials.values() if t.status == "RUNNING"]
        self.ongoing_trials = {}
        # Taken from the end: the first comes first again.
        self._retry_queue += sorted(set(begun) - set(self._retry_queue), reverse=True)


class Random(Durable, keras_tuner.oracles.RandomSearchOracle):
    """Values drawn independently for each trial."""


class Grid(Durable, keras_tuner.oracles.GridSearchOracle):
    """All combinations in order, from the preset's; ten values of a range without a step."""

    def get_state(self) -> dict[str, Any]:
        order = self._ordered_ids
        following = {k: v for k, v in order._next_index.items() if v is not None}
        ids = [order._memory, sorted(following.items(), key=str), order._last_index]
        return {**super().get_state(), "ordered_ids": ids, "populate_next": self._populate_next}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._populate_next = state["populate_next"]
        order = self._ordered_ids
        order._memory, following, order._last_index = state["ordered_ids"]
        order._next_index.update(dict(following))
        order._data_to_index = {name: i for i, name in enumerate(order._memory)}


class Bayesian(Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process over the trials so far says where the next may be best."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # Of a process that fits poorly, as when all scores are alike: a guess and no fault.
            warnings.simplefilter("ignore", ConvergenceWarning)
            chosen: dict[str, Any] = super().populate_space(trial_id)
        return chosen

    def _get_hp_bounds(self) -> np.ndarray:
        # The end of KerasTuner's ranges, 1, is no part of them: a whole number would be one more.
        bounds: np.ndarray = super()._get_hp_bounds() * (1 - 1e-9)
        return bounds

    def get_state(self) -> dict[str, Any]:
        _, keys, position, *normal = self._random_state.get_state()
        return {**super().get_state(), "random_state": [keys.tolist(), position, *normal]}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        keys, *rest = state["random_state"]
        self._random_state.set_state(("MT19937", np.array(keys, np.uint32), *rest))


class Hyperband(Durable, keras_tuner.oracles.HyperbandOracle):
    """Many trials of few epochs, the best of them again with more, round after round."""


def build_oracle(
    tuner: str,
    space: keras_tuner.HyperParameters,
    spec: SequenceSpec,
    *,
    trials: int,
    epochs: int,
    seed: int,
    file: Path,
    objective: Objective = "accuracy",
) -> Durable:
    """The oracle of that name, which keeps its state in `file`. Raises `InputError` if unknown."""
    # KerasTuner takes 0 for no seed, and neighbouring seeds give it overlapping draws.
    spread = int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1
    options: dict[str, Any] = {
        "hyperparameters": space, "seed": spread, "file": file, "spec": spec,
        "objective": objective,
    }  # fmt: skip
    if tuner == "hyperband":
        # It goes on with new brackets until there are enough trials.
        oracle: Durable = Hyperband(max_epochs=epochs, hyperband_iterations=trials, **options)
        oracle.max_trials = trials
        return oracle
    kinds = {"bayesian": Bayesian, "random": Random, "grid": Grid}
    if tuner not in kinds:
        raise InputError(
            f"unknown tuner {tuner!r}", expected=f"one of {', '.join(get_args(Tuner))}"
        )
    built: Durable = kinds[tuner](max_trials=trials, **options)
    return built
