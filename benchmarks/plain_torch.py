"""What a PyTorch user writes first: a DataLoader and a loop.

    python -m benchmarks.plain_torch EPOCHS LAYER

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rnn_tf.data import Split, load


class Classifier(nn.Module):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, its last hidden state, `nn.Linear`."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.recurrent = getattr(nn, layer)(28, 32, batch_first=True)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, 10)` of `x` `(batch, 28, 28)`."""
        _, last = self.recurrent(x)
        hidden = last[0] if isinstance(last, tuple) else last  # that of an LSTM has two parts
        logits: torch.Tensor = self.linear(hidden[0])
        return logits


def loader(split: Split, *, shuffle: bool) -> DataLoader[tuple[torch.Tensor, ...]]:
    x = torch.from_numpy(split.x).float() / 255
    return DataLoader(
        TensorDataset(x, torch.from_numpy(split.y).long()), batch_size=64, shuffle=shuffle
    )


def accuracy(model: Classifier, batches: DataLoader[tuple[torch.Tensor, ...]]) -> float:
    right = total = 0
    with torch.no_grad():
        for x, y in batches:
            right += int((model(x).argmax(1) == y).sum())
            total += len(y)
    return right / total


def main(epochs: int, layer: str) -> None:
    """Train the tutorial's model on MNIST for some epochs."""
    data = load("mnist")
    train, valid, test = (
        loader(split, shuffle=split is data.train) for split in (data.train, data.valid, data.test)
    )
    model = Classifier(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for x, y in train:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy(model, valid)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"epochs": seconds, "accuracy": accuracy(model, test)}))


if __name__ == "__main__":
    epochs, layer = sys.argv[1:]
    main(int(epochs), layer)
