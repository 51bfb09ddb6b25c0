"""KerasTuner's loop around our training: ask for a trial, train it, say how it went."""

from __future__ import annotations

import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials
from keras_tuner.src import config as keras_tuner_config

from rnn_tf.config import Objective, TrainConfig
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.startup import compile_cache
from rnn_tf.training.backend import Backend, choose_backend
from rnn_tf.training.divergence import DivergenceWarning
from tuning.oracles import ALIVE, REASON, objective_of
from tuning.space import configure
from tuning.trial import train_trial, without_test

# Exit code of a worker that takes too much memory: it is started anew.
GROWN = 75
# How much more memory a worker may take than after its first trial. Bytes.
GROWTH = 2**30
# How often a worker says that it is alive. Seconds.
SIGN_OF_LIFE = 10.0


class TrialTuner(base_tuner.BaseTuner):
    """Runs KerasTuner's loop around our training; `backend` serves all its trials."""

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        base: TrainConfig,
        data: SequenceData,
        directory: Path,
        backend: Backend | None = None,
    ) -> None:
        import tensorflow as tf

        super().__init__(oracle, directory=str(directory.parent), project_name=directory.name)
        self.base = base
        self.data = without_test(data)
        self.backend = backend or choose_backend(base.backend, warn=False)
        # TensorFlow warns of programs that are compiled again and again: those of new trials.
        tf.get_logger().setLevel("ERROR")

    def pre_create_trial(self) -> None:
        # KerasTuner asks again at once when there is nothing to do until other trials have ended.
        time.sleep(0.02)

    def run_trial(self, trial: trials.Trial) -> dict[str, Any]:
        try:
            config = configure(trial.hyperparameters.values, self.base)
            return train_trial(
                config, self.data, Path(self.get_trial_dir(trial.trial_id)), self.backend
            )
        except Exception as error:
            if isinstance(error.__cause__, OSError):  # a full disk, and so for every trial
                raise keras_tuner.errors.FatalError(str(error)) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            trial.hyperparameters.values[REASON] = reason[:300]
            raise keras_tuner.errors.FailedTrialError(reason) from error

    def on_trial_end(self, trial: trials.Trial) -> None:
        self.oracle.end_trial(trial)

    def search(self) -> None:
        """Train trials until the oracle has no more. Raises `InputError` when none can be kept."""
        keras_tuner_config.DEBUG = False  # a trial that fails is recorded, not printed
        try:
            with warnings.catch_warnings():
                # To try what diverges is what a search is for.
                warnings.simplefilter("ignore", DivergenceWarning)
                super().search()
        except keras_tuner.errors.FatalError as error:
            raise InputError(str(error)) from error

    def save(self) -> None:
        """Do nothing: the oracle saves itself at each step."""


class RemoteTuner(TrialTuner):
    """A worker whose oracle is in another process."""

    def __init__(self, base: TrainConfig, data: SequenceData, directory: Path) -> None:
        super().__init__(no_oracle(base.objective), base, data, directory)

    smallest: int | None = None  # bytes resident after the first trial

    def on_trial_end(self, trial: trials.Trial) -> None:
        super().on_trial_end(trial)
        import psutil

        resident = psutil.Process().memory_info().rss
        self.smallest = self.smallest or resident
        if resident > self.smallest + GROWTH:
            compile_cache.record()
            raise SystemExit(GROWN)

    def say_alive(self) -> None:
        """Send signs of life, and end the process when the chief is gone.

        KerasTuner itself would wait an hour for it.
        """
        host, port = (os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))
        missed = 0
        while missed < 3:
            try:
                socket.create_connection((host, int(port)), timeout=SIGN_OF_LIFE).close()
                self.oracle.get_trial(f"{ALIVE}:{self.tuner_id}")
                missed = 0
            except Exception:
                missed += 1
            time.sleep(SIGN_OF_LIFE)
        os._exit(0)


def no_oracle(objective: Objective = "accuracy") -> keras_tuner.Oracle:
    """Make what KerasTuner builds its client for the chief from; the chief has the real oracle."""
    return keras_tuner.Oracle(objective=objective_of(objective))
