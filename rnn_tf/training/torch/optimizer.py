"""The optimizer of a run in PyTorch: the same rules and numbers as in Keras."""

from __future__ import annotations

import numpy as np
import torch

from rnn_tf.config import TrainConfig
from rnn_tf.training.keras.optimizer import learning_rate
from rnn_tf.training.torch.module import SequenceClassifier, gate_rows
from rnn_tf.training.torch.soap import Soap

BETAS = (0.9, 0.999)
EPSILON = 1e-7  # as Keras's Adam


class Updates:
    """The optimizer of a run, told before each of its `steps` updates what is then due."""

    def __init__(self, config: TrainConfig, module: SequenceClassifier, steps: int) -> None:
        self.optimizer = _optimizer(config, module)
        self.clip_norm = config.clip_norm
        self.rates = _rates(config, steps)
        self._trained = [p for p in module.parameters() if p.requires_grad]

    def step(self, done: int, scaler: torch.amp.GradScaler) -> None:
        """One update along the gradients, after `done` others."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[done]
            if "eps" in group:
                # Keras has Adam's epsilon beside the root of the uncorrected average, PyTorch
                # beside that of the corrected one.
                group["eps"] = EPSILON / (1 - BETAS[1] ** (done + 1)) ** 0.5
        scaler.unscale_(self.optimizer)
        if self.clip_norm:
            self._clip()
        scaler.step(self.optimizer)
        scaler.update()

    def _clip(self) -> None:
        """Scale the whole gradient down to the largest norm allowed."""
        grads = [parameter.grad for parameter in self._trained]
        norm = torch.linalg.vector_norm(torch.cat([grad.view(-1) for grad in grads]))
        # Without asking how large it is, which would wait for a GPU.
        factor = self.clip_norm / norm.clamp(min=self.clip_norm)
        torch._foreach_mul_(grads, factor)


def _rates(config: TrainConfig, steps: int) -> list[float]:
    """The learning rate of each step and of the one that would follow, by Keras's own schedule."""
    rate = learning_rate(config, steps)
    if isinstance(rate, float):
        return [rate] * (steps + 1)
    rates: list[float] = np.asarray(rate(np.arange(steps + 1))).tolist()
    return rates


def _optimizer(config: TrainConfig, module: SequenceClassifier) -> torch.optim.Optimizer:
    layers = [
        [parameter for parameter in layer.parameters() if parameter.requires_grad]
        for layer in (module.recurrent, module.dense)
    ]
    if config.optimizer == "soap":
        groups = [{"params": layer} for layer in layers]
        order = gate_rows(module)
        if order is not None:
            groups[0]["order"] = order
        return Soap(groups, weight_decay=config.weight_decay)
    parameters = [parameter for layer in layers for parameter in layer]
    # One call for all parameters: with so few weights, calls are what takes time.
    options = {"betas": BETAS, "fused": True}
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, **options)
    # Decay makes functions simpler by shrinking slopes; a bias is an offset.
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    biases = [parameter for parameter in parameters if parameter.ndim == 1]
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        **options,
    )
