"""The optimizer of a run in PyTorch: the same rules and numbers as in Keras."""

from __future__ import annotations

import keras
import numpy as np
import torch

from rnn_tf.config import TrainConfig
from rnn_tf.training.keras.optimizer import learning_rate
from rnn_tf.training.torch.module import SequenceClassifier, direction_names, gate_rows
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
    rates: list[float] = keras.ops.convert_to_numpy(rate(np.arange(steps + 1))).tolist()
    return rates


def _optimizer(config: TrainConfig, module: SequenceClassifier) -> torch.optim.Optimizer:
    layers = _by_layer(module)
    if config.optimizer == "soap":
        # The last layer is `nn.Linear`, which has no gates.
        order = gate_rows(module)
        orders = [order] * (len(layers) - 1) + [None]
        groups = [{"params": p, "order": o} for p, o in zip(layers, orders, strict=True)]
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


def _by_layer(module: SequenceClassifier) -> list[list[torch.nn.Parameter]]:
    """What is trained, by the direction of the layer that it belongs to, as in Keras."""
    recurrent = dict(module.recurrent.named_parameters())
    names = direction_names(module.recurrent.num_layers, module.recurrent.bidirectional)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layers = [[recurrent[f"{part}_{name}"] for part in parts] for name in names]
    layers.append(list(module.dense.parameters()))
    return [[parameter for parameter in layer if parameter.requires_grad] for layer in layers]
