"""Who trains the trials: this process, several on this machine, or others that join."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials
from keras_tuner.src import config as keras_tuner_config

from rnn_tf import runtime
from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData, load
from rnn_tf.errors import CheckFailed, InputError
from tuning.oracles import ALIVE, REASON, SETTINGS, Durable
from tuning.space import configure
from tuning.trial import train_trial, without_test


class TrialTuner(base_tuner.BaseTuner):
    """KerasTuner's loop, ask for a trial, run it, say how it went, around our training."""

    def __init__(
        self, oracle: keras_tuner.Oracle, base: TrainConfig, data: SequenceData, directory: Path
    ) -> None:
        import tensorflow as tf

        from rnn_tf.fit import CompiledModels

        super().__init__(oracle, directory=str(directory.parent), project_name=directory.name)
        self.base = base
        self.data = without_test(data)
        self.kept = CompiledModels()
        # A new program for each trial is what it warns of, and what a search is.
        tf.get_logger().setLevel("ERROR")

    def pre_create_trial(self) -> None:
        # KerasTuner asks again at once when there is nothing to do until other trials have ended.
        time.sleep(0.02)

    def run_trial(self, trial: trials.Trial) -> dict[str, Any]:
        try:
            config = configure(trial.hyperparameters.values, self.base)
            return train_trial(config, self.data, Path(self.get_trial_dir(trial.trial_id)), self.kept)
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
            super().search()
        except keras_tuner.errors.FatalError as error:
            raise InputError(str(error)) from error

    def save(self) -> None:
        """Nothing: the oracle saves itself at each step."""
