"""What a log holds of a training."""

from __future__ import annotations

import pytest
from commands import Capture

from rnn_tf.training.progress import ProgressBar


@pytest.mark.parametrize(
    ("epochs", "ends_after", "first", "lines"),
    [(10, 10, [1, 2, 3], 10), (40, 40, [1, 2, 3], 40), (41, 41, [1, 3, 5], 21),
     (400, 400, [1, 11, 21], 41), (400, 27, [1, 11, 21], 4)],
)  # fmt: skip
def test_a_log_has_some_lines_of_many_epochs_and_always_the_last(
    epochs: int, ends_after: int, first: list[int], lines: int, capsys: Capture
) -> None:
    bar = ProgressBar(epochs, finished=0)
    bar.on_train_begin()
    for epoch in range(ends_after):
        bar.on_epoch_end(epoch, {"crossentropy": 0.5, "val_accuracy": 0.75})
    bar.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert [line.split("/")[0] for line in said[:3]] == [f"epoch {epoch}" for epoch in first]
    assert said[-1] == f"epoch {ends_after}/{epochs}  loss 0.5000  validation accuracy 75.00%"


def test_the_bar_grows_with_the_pieces_of_an_epoch() -> None:
    bar = ProgressBar(2, finished=0)
    bar.set_params({"epochs": 2, "steps": 4})
    bar.on_train_begin()
    seen: list[float] = []
    for epoch in range(2):
        for piece in range(4):
            assert (bar.bar.tasks[0].fields["scores"] == "compiling") == (not seen)
            bar.on_train_batch_end(piece)
            seen.append(bar.bar.tasks[0].completed)
        bar.on_epoch_end(epoch, {"crossentropy": 0.5, "val_accuracy": 0.75})
    bar.close()
    assert seen == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert bar.bar.tasks[0].fields["ended"] == 2
