"""What a PyTorch user writes first: a DataLoader and a loop. Prints one JSON object."""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rnn_tf.data import Split, load


class Classifier(nn.Module):
    """`nn.RNN`, its last hidden state, `nn.Linear`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(28, 32, batch_first=True)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, 10)` of `x` `(batch, 28, 28)`."""
        _, last = self.rnn(x)
        logits: torch.Tensor = self.linear(last[0])
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


def main(epochs: int) -> None:
    """Train the tutorial's model on MNIST for some epochs."""
    data = load("mnist")
    train, valid, test = (
        loader(split, shuffle=split is data.train) for split in (data.train, data.valid, data.test)
    )
    model = Classifier()
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
    main(int(sys.argv[1]))
