"""What a training is computed with: Keras or PyTorch, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from rnn_tf import config
from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceData, Split
from rnn_tf.run import Run

if TYPE_CHECKING:
    import keras
    import numpy as np

    from rnn_tf.training.recorder import Fitted


class Backend(Protocol):
    """Trains classifiers, as many as wanted, one after the other."""

    @property
    def first_epoch(self) -> str:
        """What goes on before the first epoch has ended, for the progress bar."""

    def describe(self, config: TrainConfig, data: SequenceData) -> str:
        """How it trains this, for a person. Raises `InputError` when it cannot."""

    def precision(self, config: TrainConfig) -> str:
        """The Keras dtype policy that `config.precision` stands for on this machine."""

    def fit(
        self,
        run: Run,
        data: SequenceData,
        callbacks: Sequence[keras.callbacks.Callback],
        beside: Executor | None = None,
    ) -> Fitted:
        """Train what `run.config` says, keeping history and checkpoint in `run`.

        Goes on from the checkpoint, if there is one. Where `probabilities` will be asked for,
        `beside` may get ready for that meanwhile. Raises `CheckFailed` when no epoch has a
        finite loss, and `InputError` when the run cannot be written.
        """

    def probabilities(self, run: Run, model: keras.Sequential, split: Split) -> np.ndarray:
        """What `model` says to every example of a split: float32 `(n, classes)`."""


def choose_backend(name: config.Backend, *, warn: bool = True) -> Backend:
    """The backend of that name. Call it after TensorFlow has been started.

    `warn`: when a run is compiled otherwise than the command would compile it. Raises
    `InputError` when its library is not installed.
    """
    if name == "torch":
        from rnn_tf.training.torch.backend import TorchBackend

        return TorchBackend()
    from rnn_tf.training.keras.backend import KerasBackend

    return KerasBackend(warn=warn)
