"""What a person sees while training runs: a bar on a terminal, lines in a log."""

from __future__ import annotations

import math
import sys

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Lines in a log, at most about so many: of more epochs, some are passed over.
MOST_LINES = 40


class ProgressBar(keras.callbacks.Callback):
    """Shows on stderr where training is, and the scores of the last epoch.

    In a log the first and the last epoch have a line, and about forty of those between.
    """

    async_safe = True  # Keras need not wait until a piece of an epoch is shown

    def __init__(
        self, epochs: int, finished: int, waiting: str = "compiling", score: str = "accuracy"
    ) -> None:
        super().__init__()
        self.score = score  # of the validation split: accuracy or balanced_accuracy
        self.epochs = epochs
        self.finished = finished
        self.waiting = waiting
        self.trained = False  # anything yet
        self.line = ""  # what the last epoch would have been in a log, if it was passed over
        self.console = Console(file=sys.stderr)
        self.bar = Progress(
            TextColumn("epoch {task.fields[ended]}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
            console=self.console,
            # Redirecting would swallow what other libraries print while the bar is up.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.console.is_terminal,
        )

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.bar.start()
        self.task = self.bar.add_task(
            "",
            total=self.epochs,
            completed=self.finished,
            ended=self.finished,
            scores=self.waiting,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # Of the epochs that take long, most are trained in pieces: each is a batch for Keras.
        of_epoch = (batch + 1) / (self.params.get("steps") or math.inf)
        if not self.trained:
            self.trained = True
            self.bar.update(self.task, scores="training")
        self.bar.update(self.task, completed=self.finished + of_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        scores = (
            f"loss {logs.get('crossentropy', float('nan')):z.4f}  "
            f"validation {self.score.replace('_', ' ')} "
            f"{logs.get(f'val_{self.score}', float('nan')):.2%}"
        )
        self.finished = epoch + 1
        self.bar.update(self.task, completed=epoch + 1, ended=epoch + 1, scores=scores)
        if not self.console.is_terminal:
            self.line = f"epoch {epoch + 1}/{self.epochs}  {scores}"
            if epoch % -(-self.epochs // MOST_LINES) == 0:
                self._print_line()

    def _print_line(self) -> None:
        if self.line:
            print(self.line, file=sys.stderr, flush=True)
            self.line = ""

    def close(self) -> None:
        """Say where it ended and leave the terminal as it was, also after an interruption."""
        self._print_line()
        self.bar.stop()
