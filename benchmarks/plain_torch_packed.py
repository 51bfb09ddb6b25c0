"""What a PyTorch user writes for sequences of different lengths: packed, on whole tensors.

    python -m benchmarks.plain_torch_packed EPOCHS FILE CELL THREADS

FILE is what `benchmarks.lengths` writes. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Classifier(nn.Module):
    """PyTorch's own recurrent layer, its last state, `nn.Linear`."""

    def __init__(self, cell: str, features: int, classes: int) -> None:
        super().__init__()
        kind = {"simple_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.recurrent = kind(features, 32, batch_first=True)
        self.linear = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, classes)` of right-padded `x` `(batch, timesteps, features)`."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.recurrent(packed)
        hidden = last[0] if isinstance(last, tuple) else last
        logits: torch.Tensor = self.linear(hidden[-1])
        return logits


def accuracy(model: Classifier, examples: Tensors) -> float:
    x, y, lengths = examples
    with torch.no_grad():
        right = sum(
            int((model(a, n).argmax(1) == b).sum())
            for a, b, n in zip(x.split(1000), y.split(1000), lengths.split(1000), strict=True)
        )
    return right / len(y)


def main(epochs: int, file: str, cell: str, threads: int) -> None:
    """Train for some epochs."""
    torch.set_num_threads(threads)
    with np.load(file) as arrays:
        (x, y, lengths), valid, test = (
            (
                torch.from_numpy(arrays[f"x_{split}"]),
                torch.from_numpy(arrays[f"y_{split}"]).long(),
                torch.from_numpy(arrays[f"lengths_{split}"]).long(),
            )
            for split in ("train", "valid", "test")
        )
    model = Classifier(cell, x.shape[2], int(y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for batch in torch.randperm(len(y)).split(64):
            loss = criterion(model(x[batch], lengths[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy(model, valid)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"epochs": seconds, "accuracy": accuracy(model, test)}))


if __name__ == "__main__":
    epochs, file, cell, threads = sys.argv[1:]
    main(int(epochs), file, cell, int(threads))
