"""What a training keeps while it runs, whatever computes it: history, best weights, checkpoint."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.data.spec import Split
from rnn_tf.errors import CheckFailed
from rnn_tf.run import Run
from rnn_tf.training import divergence
from rnn_tf.training.best_epoch import best_epoch, effective_examples, highest_epoch

if TYPE_CHECKING:
    import keras

# The checkpoint is written when the last one is so many seconds old: an epoch of a small set takes
# less time than writing what it has changed.
SAVED_EVERY = 1.0


@dataclass(frozen=True)
class Fitted:
    """What training gives."""

    model: keras.Sequential  # with the weights of the best epoch
    history: list[dict[str, Any]]
    best_epoch: int  # counted from 1
    stopped: str | None  # what went wrong and ended training, if anything did
    ended_early: bool = False  # whether training ended because the objective improved no more


class Recorder:
    """Keeps the history, the best weights and the checkpoint; says so when the loss diverges.

    `held_out` is the validation split, of which the scores of an epoch are. Epochs that a break
    loses, those of the last second, are trained again, to the same end.
    """

    def __init__(self, run: Run, epochs: int, held_out: Split) -> None:
        self.run = run
        self.epochs = epochs
        self._examples = effective_examples(held_out, run.config.objective)
        self.history: list[dict[str, Any]] = []
        self.best_weights: list[np.ndarray] | None = None  # as Keras orders them
        self.stopped: str | None = None
        self._began = 0.0
        self._saved = -math.inf  # when
        self._warned = False

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept."""
        return best_epoch(self.history, self.run.config, self._examples)

    @property
    def ended_early(self) -> bool:
        """Whether the objective has not improved for as many epochs as the settings allow."""
        config = self.run.config
        if not config.patience or not 0 < len(self.history) < self.epochs:
            return False
        since = len(self.history) - highest_epoch(self.history, config.objective)
        return since >= config.patience

    @property
    def over(self) -> bool:
        """Whether there is no epoch to come."""
        return bool(self.stopped) or self.ended_early or len(self.history) >= self.epochs

    def restore(self) -> dict[str, np.ndarray] | None:
        """Take over the checkpoint of the run, if any; the state that was given to `end_epoch`."""
        state = self.run.load_state()
        if state is None:
            return None
        self.history = json.loads(str(state.pop("history")))
        count = sum(name.startswith("best/") for name in state)
        self.best_weights = [state.pop(f"best/{i}") for i in range(count)]
        # A kill may have fallen between the two files.
        self.run.save_history(self.history)
        return state

    def begin(self) -> None:
        # Of TensorBoard itself: TensorFlow's own writer takes as long as an epoch of a small set.
        from tensorboard.summary import Writer

        self._tensorboard = Writer(str(self.run.tensorboard_folder))

    def end(self) -> None:
        self._tensorboard.close()

    def begin_epoch(self) -> None:
        self._began = time.perf_counter()

    def end_epoch(
        self,
        scores: dict[str, float],
        weights: Callable[[], list[np.ndarray]],
        state: Callable[[], dict[str, np.ndarray]],
    ) -> None:
        """Keep an epoch: `loss`, `accuracy`, `val_loss`, `val_accuracy` and `learning_rate`.

        And `balanced_accuracy` and `val_balanced_accuracy` where that is the objective.

        `weights` are asked for when it is the best epoch so far, `state`, all that training needs
        to go on, when it is written. Sets `stopped` instead when a loss is NaN or infinite, and
        warns (`DivergenceWarning`) when one is far too large for the first time.
        """
        epoch = len(self.history) + 1
        seconds = round(time.perf_counter() - self._began, 4)
        record: dict[str, Any] = {"epoch": epoch, "seconds": seconds, **scores}
        if not (math.isfinite(record["loss"]) and math.isfinite(record["val_loss"])):
            self.stopped = f"the loss became NaN or infinite in epoch {epoch}"
            self.run.save_history(self.history)
            return
        self.history.append(record)
        if self.best_epoch == epoch:
            self.best_weights = weights()
        self._show(record)
        self._warn(record)
        if self.over or time.monotonic() - self._saved >= SAVED_EVERY:
            self._save(state())
            self._saved = time.monotonic()

    def best(self, model: keras.Sequential) -> Fitted:
        """What training gave, as `model` with the best weights.

        Raises `CheckFailed` if there are none, and has the run remember why.
        """
        if self.best_weights is None:
            advice = divergence.advice(self.run.config, self.run.spec)
            self.run.save_failure(str(self.stopped), advice)
            raise CheckFailed(f"{self.stopped}; {advice}")
        model.set_weights(self.best_weights)
        return Fitted(model, self.history, self.best_epoch, self.stopped, self.ended_early)

    def _warn(self, record: dict[str, Any]) -> None:
        message = divergence.warning(record["epoch"], record, self.run.config, self.run.spec)
        if message and not self._warned:
            self._warned = True
            warnings.warn(message, divergence.DivergenceWarning, stacklevel=2)

    def _show(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "epoch":
                self._tensorboard.add_scalar(name, value, record["epoch"])

    def _save(self, state: dict[str, np.ndarray]) -> None:
        best = {f"best/{i}": weight for i, weight in enumerate(self.best_weights or [])}
        # The history is in the checkpoint too: one file, so both are of the same epoch.
        self.run.save_state(state | best | {"history": np.array(json.dumps(self.history))})
        self.run.save_history(self.history)
        self._tensorboard.flush()
