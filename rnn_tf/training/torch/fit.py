"""The training loop in PyTorch: the same training as that in Keras, an independent witness of it.

The same initial weights, order of examples, schedule and rules; the arithmetic, the gradients and
the scores are PyTorch's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np

from rnn_tf.training.torch.module import (  # says if PyTorch is missing
    LAYERS,
    SequenceClassifier,
    direction_names,
    from_torch,
    to_torch,
)

# isort: split
import torch
from torch.nn import functional

from rnn_tf.config import TrainConfig
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import UNLABELLED, SequenceData, SequenceSpec, Split
from rnn_tf.model.cells import CELLS
from rnn_tf.model.classifier import build_model
from rnn_tf.run import Run
from rnn_tf.training.class_weights import class_weights
from rnn_tf.training.order import epoch_order
from rnn_tf.training.recorder import Fitted, Recorder
from rnn_tf.training.torch.gradients import ManualGradients
from rnn_tf.training.torch.layer_gradients import are_written_out
from rnn_tf.training.torch.optimizer import Updates
from rnn_tf.training.torch.recorded import Recorded, WorkOnBatch

# Normalizes raw float32 `(..., features)` in place, and returns it.
Normalizer = Callable[[torch.Tensor], torch.Tensor]
# A factor for each input of each direction of each layer: 0 where it is dropped.
Masks = list[torch.Tensor]
# What chance does to a batch: its masks, and what is added to its normalized `x`. None: nothing.
Chance = tuple[Masks | None, torch.Tensor | None]

# Examples scored at a time: what all their time steps need fits into a processor's cache.
EVALUATION_BATCH = 500
# Multiplications of the states of one time step that a thread must have: with as many, two take a
# fifth off an epoch or more, on two cores of an AMD EPYC. With less, threads mostly wait for each
# other, and for long where other programs have the cores.
LEAST_A_THREAD = 2**18
# PyTorch's kernel for LSTM calls its threads less often, once it has begun.
LEAST_A_THREAD_IN_LSTM = 2**16
# Columns of the state's product, units times gates. With less, converting numbers and scaling the
# loss takes longer than the product saves. On an H200, batches of 64, an epoch took longer than in
# float32 by these factors: SimpleRNN(256) 1.5, LSTM(128) 1.15, GRU(256) and LSTM(256) 0.7.
LEAST_COLUMNS_IN_FLOAT16 = 768
# Where lengths vary, batches have so many widths on a GPU, each of which is recorded. More would
# cost more time and memory; fewer, more steps that no sequence has.
WIDTHS = 8

DTYPES = {"mixed_float16": torch.float16, "mixed_bfloat16": torch.bfloat16}


def choose_device() -> torch.device:
    """The GPU that CUDA has, or that of an Apple machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(config: TrainConfig) -> str:
    """What `--precision` means here.

    `auto` is `mixed_float16` for a large layer on a GPU with tensor cores.
    """
    if config.precision != "auto":
        return config.precision
    capable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)
    large = config.units * len(CELLS[config.cell].gates) >= LEAST_COLUMNS_IN_FLOAT16
    return "mixed_float16" if capable and large else "float32"


def writes_out(config: TrainConfig, precision: str, *, varies: bool = False) -> bool:
    """Whether gradients are written out rather than left to autograd.

    `varies`: sequences have different lengths. Only autograd knows mixed precision. On a GPU the
    kernels of cuDNN are faster, and what they do not know is written out where it can be recorded.
    """
    one = config.layers == 1 and not config.bidirectional
    if not (one and config.fused and precision == "float32"):
        return False
    if choose_device().type == "cpu":
        return are_written_out(config.cell, config.cell_activation)
    unknown = config.cell == "simple_rnn" and _own(config) is None
    return unknown and not varies and records(config, varies=False)


def records(config: TrainConfig, *, varies: bool) -> bool:
    """Whether the work on a batch is recorded as a CUDA graph.

    It is not where sequences of different lengths are packed, which the CPU does.
    """
    packed = varies and config.bidirectional and _own(config) is not None
    return config.fused and not packed and choose_device().type == "cuda"


def _own(config: TrainConfig) -> str | None:
    """PyTorch's own layer that computes the same, by name, if there is one."""
    gates = "linear" if config.cell == "simple_rnn" else "sigmoid"
    return LAYERS.get((config.cell, config.cell_activation, gates))


def threads_for(config: TrainConfig) -> int:
    """The threads of PyTorch that have enough to multiply in a time step; `OMP_NUM_THREADS` limits.

    A measurement would choose otherwise from run to run, and another number rounds otherwise.
    """
    products = config.largest_batch * len(CELLS[config.cell].gates) * config.units**2
    least = LEAST_A_THREAD_IN_LSTM if _own(config) == "LSTM" else LEAST_A_THREAD
    enough: int = products // least
    available: int = torch.get_num_threads()
    return max(1, min(available, enough))


def normalizer(normalize: Normalize, device: torch.device) -> Normalizer:
    """The rule of `Normalize` in PyTorch."""
    scale, shift = (
        None if values is None else torch.from_numpy(np.asarray(values)).to(device)
        for values in normalize.arrays()
    )
    return lambda x: x.mul_(scale) if shift is None else x.mul_(scale).add_(shift)


def fit(
    config: TrainConfig,
    data: SequenceData,
    run: Run,
    *,
    precision: str = "float32",
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> Fitted:
    """Train, keeping a checkpoint and the history in `run` as `fit.fit` does.

    Weights start as Keras starts them, so seed that first. `callbacks` are told when training
    begins and when an epoch ends, with the scores named as Keras names them. Raises `CheckFailed`
    when the loss is NaN in the very first epoch, `InputError` when the run cannot be written.
    """
    config = config.resolved(data.spec, len(data.train.y))
    with _set_up(config):
        training = Training(config, data, precision)
        recorder = Recorder(run, training.epochs, data.valid)
        state = recorder.restore()
        if state is not None:
            training.restore(state)
        recorder.begin()
        for callback in callbacks or []:
            callback.on_train_begin()
        try:
            while not recorder.over:
                epoch = len(recorder.history)
                recorder.begin_epoch()
                scores = training.epoch(epoch)
                recorder.end_epoch(scores, training.weights, training.state)
                for callback in callbacks or []:
                    callback.on_epoch_end(epoch, _as_keras_names(scores))
        finally:
            recorder.end()
    return recorder.best(build_model(config, data.spec, precision=precision))


def probabilities(
    model: keras.Sequential, split: Split, spec: SequenceSpec, *, precision: str = "float32"
) -> np.ndarray:
    """What PyTorch says for every example of a split with the weights of `model`.

    float32 `(n, classes)`, or `(n, timesteps, classes)` from a model that answers at every step.
    """
    device = choose_device()
    module = to_torch(model).to(device)
    examples = _on(device, split)
    with _threads(1):
        logits = _logits(module, examples, normalizer(spec.normalization, device), precision)
    result: np.ndarray = torch.softmax(logits, -1).cpu().numpy()
    return result


class Training:
    """One training: the module, its optimizer and the data, all on the device.

    `config` is resolved.
    """

    def __init__(self, config: TrainConfig, data: SequenceData, precision: str) -> None:
        self.config = config
        self.spec = data.spec
        self.precision = precision
        dropout, noise = config.dropout, config.noise
        if dropout == "auto" or noise == "auto":
            raise TypeError("dropout or noise is auto; expected settings from TrainConfig.resolved")
        self.dropout = dropout
        self.device = choose_device()
        self.normalize = normalizer(data.spec.normalization, self.device)
        # The deviation of what is added to each feature, `(features,)`.
        self.noise = torch.from_numpy(noise * data.deviation()).to(self.device) if noise else None
        # The data stay as they came, uint8 for the most part, and are normalized batch by batch.
        self.lengths = data.train.lengths
        self.own_labels = data.train.labelled_by_step
        learned, held_out = (each.labelled_for(data.spec) for each in (data.train, data.valid))
        self.train, self.valid = _on(self.device, learned), _on(self.device, held_out)
        self.module = to_torch(build_model(config, data.spec), dropout=self.dropout > 0)
        self.module.to(self.device)
        if CELLS[config.cell].biases == 1:
            # Such cells have one bias in Keras and two here, of which only the sum counts.
            # Trained both, the sum would take steps of twice the length.
            for name in direction_names(config.layers, config.bidirectional):
                self.module.recurrent.get_parameter(f"bias_hh_{name}").requires_grad_(False)
        for parameter in self.module.parameters():
            # Also of a weight that nothing depends on: with one time step no state is multiplied.
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        weights = class_weights(config.class_weights, learned.y, data.spec.classes)
        self.class_weights = (
            weights if weights is None else torch.from_numpy(weights).to(self.device)
        )
        self.batch_size = config.batch_size_for(len(self.train.y))
        self.steps = config.updates_an_epoch(len(self.train.y))
        self.epochs = config.epochs_for(len(self.train.y))
        self.updates = Updates(config, self.module, self.steps * self.epochs)
        # Small gradients are zero in float16 unless the loss is scaled up first.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "mixed_float16")
        self.chance = torch.Generator(self.device)
        self._written_out: dict[int, ManualGradients] = {}  # by the number of examples in a batch
        varies = self.lengths is not None
        self._by_hand = writes_out(config, precision, varies=varies)
        self._work: WorkOnBatch = self._gradients
        if records(config, varies=varies):
            self._work = Recorded(self._gradients, self.chance)

    def epoch(self, number: int) -> dict[str, float]:
        """Train for one epoch, counted from 0; its scores and those on the validation split."""
        examples, seed = len(self.train.y), self.config.seed
        rows = epoch_order(examples, self.batch_size, seed, number, self.lengths)
        order = torch.from_numpy(rows[rows >= 0].astype(np.int64)).to(self.device)
        shape = (len(order), *self.train.y.shape[1:], self.spec.classes)
        logits = torch.empty(shape, device=self.device)
        self._seed_chance(number)
        batches = zip(
            order.split(rows.shape[1]), logits.split(rows.shape[1]), self._widths(rows), strict=True
        )
        for done, batch in enumerate(batches, number * self.steps):
            self._work(*batch)
            self.updates.step(done, self.scaler)
        said = _logits(self.module, self.valid, self.normalize, self.precision)
        valid = {f"val_{name}": value for name, value in self._scores(said, self.valid.y).items()}
        return {
            **self._scores(logits, self.train.y[order]),
            **valid,
            "learning_rate": self.updates.rates[(number + 1) * self.steps],
        }

    def _scores(self, logits: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        """Mean cross-entropy and accuracy, 0 to 1, plain and balanced if that is the objective.

        Of answers at every step, those of steps that have a label, and by sequence.
        """
        by_sequence = {}
        if self.spec.every_step:
            by_sequence = self._scores_by_sequence(logits.argmax(2) == y, y >= 0)
            logits, y = logits[y >= 0], y[y >= 0]
        losses = functional.cross_entropy(logits, y, reduction="none")
        right = (logits.argmax(1) == y).cpu().double()
        # Sums of many float32 numbers lose digits in float32; Apple's GPUs have nothing longer.
        scores = {"loss": float(losses.cpu().double().mean()), "accuracy": float(right.mean())}
        if self.config.objective == "balanced_accuracy":
            seen = torch.bincount(y.cpu(), minlength=self.spec.classes)
            recall = torch.bincount(y.cpu(), right, minlength=self.spec.classes) / seen
            scores["balanced_accuracy"] = float(recall[seen > 0].mean())
        return scores | by_sequence

    def _scores_by_sequence(self, right: torch.Tensor, labelled: torch.Tensor) -> dict[str, float]:
        """Shares of sequences, from which of their steps are right, and which have a label."""
        steps = torch.arange(1, right.shape[1] + 1, device=right.device)
        last = (labelled * steps).argmax(1, keepdim=True)
        scores = {"last_step_accuracy": float(right.gather(1, last).cpu().double().mean())}
        if self.own_labels:
            scores["sequence_accuracy"] = float((right | ~labelled).all(1).cpu().double().mean())
        return scores

    def _widths(self, rows: np.ndarray) -> list[int]:
        """The time steps of each batch of `rows`, `(batches, batch)`, below 0 where there is none.

        Those of its longest sequence. Each width is recorded by itself, so that of those there are
        at most `WIDTHS`.
        """
        longest = self.spec.longest
        if self.lengths is None:
            return [longest] * len(rows)
        widths: np.ndarray = np.where(rows >= 0, self.lengths[rows], 0).max(1)
        if isinstance(self._work, Recorded):
            part = -(-longest // WIDTHS)
            widths = np.minimum(-(-widths // part) * part, longest)
        result: list[int] = widths.tolist()
        return result

    def _gradients(self, index: torch.Tensor, logits: torch.Tensor, width: int) -> None:
        """Fill the gradients of the weights on the examples at `index`, and what is said of them.

        `logits` is `(batch, classes)`, of answers at every step `(batch, timesteps, classes)`.
        Examples are read up to the time step `width`, the longest or later.
        """
        batch = self.train.take(index, width)
        chance = (self._masks(len(index)), self._noise(batch.x))
        gradients = self._written_out_gradients if self._by_hand else self._autograd_gradients
        gradients(batch, logits, chance)

    def _written_out_gradients(self, batch: Examples, logits: torch.Tensor, chance: Chance) -> None:
        examples = len(batch.y)
        if examples not in self._written_out:
            self._written_out[examples] = ManualGradients(
                self.module, self.config.cell_activation, self.spec.longest, examples
            )
        gradients = self._written_out[examples]
        x = gradients.x[: batch.x.shape[1]]
        self.normalize(x.copy_(batch.x.transpose(0, 1)))
        masks, noise = chance
        if noise is not None:
            x.add_(noise.transpose(0, 1))
        if masks is not None:
            x.mul_(masks[0])
        gradients(batch.y, logits, batch.lengths, self.class_weights)

    def _autograd_gradients(self, batch: Examples, logits: torch.Tensor, chance: Chance) -> None:
        self.updates.optimizer.zero_grad(set_to_none=False)
        said = _say(self.module, batch, self.normalize, self.precision, *chance)
        _fill(logits, said.detach())
        loss = functional.cross_entropy(
            said.flatten(0, -2), batch.y.flatten(), self.class_weights, ignore_index=UNLABELLED
        )
        self.scaler.scale(loss).backward()

    def _seed_chance(self, epoch: int) -> None:
        """Each epoch has its own start of chance: it needs none of the epochs before it."""
        (start,) = np.random.SeedSequence([self.config.seed, epoch]).generate_state(1, np.uint64)
        self.chance.manual_seed(int(start))

    def _noise(self, x: torch.Tensor) -> torch.Tensor | None:
        """What is added to the normalized `x` `(examples, timesteps, features)` of a batch."""
        if self.noise is None:
            return None
        drawn = torch.empty(x.shape, device=self.device).normal_(generator=self.chance)
        return drawn.mul_(self.noise)

    def _masks(self, examples: int) -> Masks | None:
        """What dropout does to the inputs of each direction of each layer, for one batch.

        A mask is `(examples, inputs of the layer)`: one for all time steps of an example, as in
        Keras.
        """
        keep = 1 - self.dropout
        if keep == 1:
            return None
        recurrent = self.module.recurrent
        names = direction_names(recurrent.num_layers, recurrent.bidirectional)
        inputs = [getattr(recurrent, f"weight_ih_{name}").shape[1] for name in names]
        masks = [torch.empty((examples, width), device=self.device) for width in inputs]
        return [mask.bernoulli_(keep, generator=self.chance) / keep for mask in masks]

    # --- what is kept of it ---
    def weights(self) -> list[np.ndarray]:
        """The weights as `keras.Model.set_weights` takes them."""
        return from_torch(self.module)

    def state(self) -> dict[str, np.ndarray]:
        """All that the next epoch depends on, but for the settings and the data."""
        state = {f"module/{name}": value for name, value in self.module.state_dict().items()}
        for i, values in self.updates.optimizer.state_dict()["state"].items():
            state |= {f"optimizer/{i}/{name}": value for name, value in values.items()}
        found = {name: value.cpu().numpy() for name, value in state.items()}
        scaler = {f"scaler/{k}": np.array(v) for k, v in self.scaler.state_dict().items()}
        return found | scaler

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        module, scaler = {}, {}
        optimizer: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            if kind == "module":
                module[rest] = torch.from_numpy(value)
            elif kind == "optimizer":
                i, _, rest = rest.partition("/")
                optimizer.setdefault(int(i), {})[rest] = torch.from_numpy(value)
            else:
                scaler[rest] = value.item()
        self.module.load_state_dict(module)
        now = self.updates.optimizer.state_dict()
        self.updates.optimizer.load_state_dict({**now, "state": optimizer})
        if scaler:
            self.scaler.load_state_dict(scaler)


class Examples(NamedTuple):
    """Some examples, all on the device."""

    x: torch.Tensor  # raw `(n, timesteps, features)`
    y: torch.Tensor  # int64 `(n,)`, by step `(n, timesteps)`, UNLABELLED where there is none
    lengths: torch.Tensor | None  # int64 `(n,)`; None: all are as long

    def take(self, index: torch.Tensor, width: int | None = None) -> Examples:
        """A copy of those at `index`, of `width` time steps; None: as many as the longest has."""
        x, y = self.x.index_select(0, index), self.y.index_select(0, index)
        if self.lengths is None:
            return Examples(x, y, None)
        lengths = self.lengths.index_select(0, index)
        width = int(lengths.max()) if width is None else width
        return Examples(x[:, :width], y[:, :width] if y.dim() == 2 else y, lengths)


def _on(device: torch.device, split: Split) -> Examples:
    """The examples of a split."""
    # PyTorch warns of arrays that may not be written to; only those are copied.
    x, y = (np.require(array, requirements=["C", "W"]) for array in (split.x, split.y))
    lengths = None
    if split.lengths is not None:
        lengths = torch.from_numpy(split.lengths.astype(np.int64)).to(device)
    return Examples(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device).long(), lengths)


def _say(
    module: SequenceClassifier,
    examples: Examples,
    normalize: Normalizer,
    precision: str,
    masks: Masks | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """The logits of some examples, which it normalizes, float32 in any precision.

    `(n, classes)`, or `(n, timesteps, classes)` from a module that answers at every step.
    """
    x = normalize(examples.x.float())
    if noise is not None:
        x = x + noise
    dtype = DTYPES.get(precision)
    with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        states = module.states(x, masks, examples.lengths)
    logits: torch.Tensor = module.dense(states.float())
    return logits


def _logits(
    module: SequenceClassifier, examples: Examples, normalize: Normalizer, precision: str
) -> torch.Tensor:
    """The logits of every example, as `_say` has them, for as many timesteps as `x` has."""
    rows = torch.arange(len(examples.x), device=examples.x.device)
    steps = examples.x.shape[1:2] if module.every_step else ()
    logits = examples.x.new_empty(
        (len(rows), *steps, module.dense.out_features), dtype=torch.float32
    )
    parts = zip(rows.split(EVALUATION_BATCH), logits.split(EVALUATION_BATCH), strict=True)
    with torch.no_grad():
        for part, of_part in parts:
            _fill(of_part, _say(module, examples.take(part), normalize, precision))
    return logits


def _fill(logits: torch.Tensor, said: torch.Tensor) -> None:
    """Put what was said of some examples into `logits`, which may have more timesteps.

    Those are beyond the end of all of them; 0 there.
    """
    if said.dim() == 3:
        logits[:, said.shape[1] :] = 0
        logits = logits[:, : said.shape[1]]
    logits.copy_(said)


def _as_keras_names(scores: dict[str, float]) -> dict[str, float]:
    return {name.replace("loss", "crossentropy"): value for name, value in scores.items()}


@contextlib.contextmanager
def _set_up(config: TrainConfig) -> Iterator[None]:
    """As many threads as pay, and only repeatable operations if asked to."""
    if config.deterministic:
        # What cuBLAS needs to repeat itself; it is read when CUDA is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    with _threads(threads_for(config)):
        yield


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
