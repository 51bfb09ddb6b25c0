"""What a PyTorch user writes when the data fits into memory: whole tensors, no DataLoader.

    python -m benchmarks.plain_torch_arrays EPOCHS CELL LAYERS DIRECTIONS THREADS

Prints one JSON object. The fastest of PyTorch's usual loops on a CPU.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn

from rnn_tf.data import Split, load


class Classifier(nn.Module):
    """PyTorch's own recurrent layers, the last state of each direction, `nn.Linear`."""

    def __init__(
        self, cell: str, layers: int = 1, directions: int = 1, features: int = 28, units: int = 32
    ) -> None:
        super().__init__()
        self.directions = directions
        kind = {"simple_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.recurrent = kind(
            features, units, num_layers=layers, bidirectional=directions == 2, batch_first=True
        )
        self.linear = nn.Linear(units * directions, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, 10)` of `x` `(batch, timesteps, features)`."""
        _, last = self.recurrent(x)
        hidden = last[0] if isinstance(last, tuple) else last
        logits: torch.Tensor = self.linear(torch.cat(tuple(hidden[-self.directions :]), 1))
        return logits


def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.x).float() / 255, torch.from_numpy(split.y).long()


def accuracy(model: Classifier, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        right = sum(
            int((model(a).argmax(1) == b).sum())
            for a, b in zip(x.split(1000), y.split(1000), strict=True)
        )
    return right / len(y)


def train_epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    batch_size: int = 64,
) -> None:
    """Update the weights with every example once, in a new order."""
    for batch in torch.randperm(len(y), device=y.device).split(batch_size):
        train_batch(model, optimizer, x[batch], y[batch])


def train_batch(
    model: Classifier, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main(epochs: int, cell: str, layers: int, directions: int, threads: int) -> None:
    """Train on MNIST for some epochs."""
    torch.set_num_threads(threads)
    data = load("mnist")
    (x, y), valid, test = map(tensors, (data.train, data.valid, data.test))
    model = Classifier(cell, layers, directions)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        train_epoch(model, optimizer, x, y)
        accuracy(model, *valid)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"epochs": seconds, "accuracy": accuracy(model, *test)}))


if __name__ == "__main__":
    epochs, cell, *shape = sys.argv[1:]
    main(int(epochs), cell, *map(int, shape))
