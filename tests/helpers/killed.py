"""A training that dies between two epochs, for the tests of what goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rnn_tf import Run
from rnn_tf.training import recorder


class Killed(BaseException):
    """As a signal would, it passes whatever handles errors."""


@contextmanager
def each_epoch_kept() -> Iterator[None]:
    """Whatever trains in here writes every epoch, and not at most one in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "SAVED_EVERY", 0)
        yield


@contextmanager
def killed_after(epochs: int) -> Iterator[None]:
    """Whatever trains in here must die when so many epochs have ended, before they are kept."""
    save_history = Run.save_history

    def dies(run: Run, history: list[dict[str, Any]]) -> None:
        if len(history) == epochs:
            raise Killed
        save_history(run, history)

    with each_epoch_kept(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_history", dies)
        with pytest.raises(Killed):
            yield
