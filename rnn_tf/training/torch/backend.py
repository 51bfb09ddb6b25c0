"""Training in PyTorch as a `Backend`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import keras
import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceData, Split
from rnn_tf.errors import InputError
from rnn_tf.run import Run
from rnn_tf.training.recorder import Fitted
from rnn_tf.training.torch import fit as torch_fit  # says if PyTorch is missing


class TorchBackend:
    """Trains with PyTorch; the model that it gives is a Keras one with the trained weights."""

    first_epoch = "training"

    def describe(self, config: TrainConfig, data: SequenceData) -> str:
        if data.stored:
            raise InputError(
                f"--backend torch needs all examples in memory, and {config.dataset} is in shards",
                fix="Leave --backend out, or give the source that the shards were written from.",
            )
        varies = data.train.lengths is not None
        by_hand = torch_fit.writes_out(config, self.precision(config), varies=varies)
        gradients = "written out" if by_hand else "by autograd"
        recorded = ", recorded as a CUDA graph" if torch_fit.records(config, varies=varies) else ""
        return f"PyTorch on {torch_fit.choose_device().type}, gradients {gradients}{recorded}"

    def precision(self, config: TrainConfig) -> str:
        return torch_fit.choose_precision(config)

    def fit(
        self,
        run: Run,
        data: SequenceData,
        callbacks: Sequence[keras.callbacks.Callback],
        beside: Executor | None = None,
    ) -> Fitted:
        precision = self.precision(run.config)
        return torch_fit.fit(run.config, data, run, precision=precision, callbacks=list(callbacks))

    def probabilities(self, run: Run, model: keras.Sequential, split: Split) -> np.ndarray:
        precision = self.precision(run.config)
        return torch_fit.probabilities(model, split, run.spec, precision=precision)
