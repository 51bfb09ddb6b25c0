"""Every setting of a training run, its default, its unit, and the presets.

A default lives here and nowhere else: the command line, the Python API, `config.json` of a run
and the presets are all views of `TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from dataclasses import KW_ONLY, dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from rnn_tf.errors import InputError
from rnn_tf.model.activations import BOUNDED
from rnn_tf.model.cells import CELLS
from rnn_tf.model.cells import Cell as Cell

if TYPE_CHECKING:
    from rnn_tf.data.spec import SequenceSpec

Preset = Literal["best", "tutorial"]
Optimizer = Literal["adam", "adamw", "muon", "soap"]
Schedule = Literal["constant", "cosine", "linear"]
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Strategy = Literal["auto", "none", "mirrored", "multi_worker"]
Backend = Literal["keras", "torch"]
NormalizeChoice = Literal["auto", "none", "standard", "minmax"]
Answer = Literal["end", "every_step"]
Missing = Literal["refuse", "interpolate", "zero"]
Objective = Literal["accuracy", "balanced_accuracy", "loss"]
ClassWeights = Literal["none", "balanced"]

# `--learning-rate auto` for sequences of up to SHORT time steps. MNIST has 28.
LEARNING_RATE = 5e-3
SHORT = 32

# `--epochs auto`: as many as make this number of weight updates, within these bounds.
UPDATES = 2_000
LEAST_EPOCHS, MOST_EPOCHS = 10, 400
# `--batch-size auto`: the largest of these that makes so many updates in an epoch.
BATCH_SIZES, UPDATES_AN_EPOCH = (64, 32, 16), 16
# `--dropout auto` and `--noise auto`, below FEW training examples. A training of UPDATES meets each
# of those more than a dozen times, often enough to learn it by heart; altered, none is met twice.
FEW = 10_000
DROPOUT, NOISE = 0.2, 0.3


@dataclass(frozen=True)
class Source:
    """Where examples come from, and how they are read.

    Raises `InputError` for a value outside its range, naming it.
    """

    dataset: str = "mnist"
    """Where examples come from: mnist, tfds:<name>, tfrecord:<folder> or tfrecord:<glob> (shards
    that rnn-tf convert has written), <file>.npz, <name>_TRAIN.ts (with <name>_TEST.ts beside it), a
    long table (<file>.csv, .tsv or .parquet, one row a time step), or a folder with a sub-folder
    for each class and in it a .csv, .tsv, .txt or .npy file for each sequence (train/ and test/
    above them if they are split)."""
    _: KW_ONLY
    id: str | None = None
    """Table: the column that says which sequence a row belongs to. None: the one with a usual name
    (id, sample, recording, ...)."""
    time: str | None = None
    """Table, or files of a folder: the column that orders the steps of a sequence. None: the one
    with a usual name (time, timestamp, step, ...), else the order of the rows."""
    label: str | None = None
    """Table: the column with the class of the sequence. None: the one with a usual name (label,
    class, target, ...)."""
    features: tuple[str, ...] = ()
    """Table, or files of a folder: the columns with the values of a step. None said: all others."""
    groups: str | None = None
    """Table: the column that says what belongs together, a person or a device, and may not be in
    two splits."""
    answer: Answer = "end"
    """What the model is asked for. end: the class of a sequence when it has ended; every_step: a
    class at every time step. Then a table or .npz may label each step, and where a sequence has
    one label, every step of it is trained to say that."""
    missing: Missing = "refuse"
    """What happens where a value is missing. interpolate: a line between the values before and
    after it in the same sequence; zero: 0 in its place."""
    window: int | None = None
    """Cut recordings into windows of so many time steps; a shorter one stays as it is. A recording
    is never in two splits."""
    stride: int | None = None
    """Time steps from the start of one window to that of the next. None: as many as --window."""
    test_share: float = 0.0
    """Share of the training examples that becomes the test split, 0 to below 1, for data that has
    none: of each class its share, whole groups where there are groups. 0.2 is usual."""
    fold: str = ""
    """Train one fold of a cross-validation: 2/5 holds the second of five parts of the training and
    validation examples out as the test split. For all of them see --folds."""

    def __post_init__(self) -> None:
        kind: Any = type(self)  # for mypy, a dataclass itself cannot be hashed
        types = _types(kind)
        for field in dataclasses.fields(self):
            _check_type(field.name, types[field.name], getattr(self, field.name))
        for name in ("window", "stride"):
            value = getattr(self, name)
            _check(name, value is None or value >= 1, "a whole number >= 1", self)
        if self.stride is not None and self.window is None:
            raise InputError("--stride means nothing without windows", fix="Add --window.")
        _check("test_share", 0 <= self.test_share < 1, "0 <= value < 1", self)
        if self.fold:
            parse_fold(self.fold)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings from plain values. Raises `InputError` for an unknown key, by name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"unknown setting {name!r}", expected=f"one of {known}")
        features = values.get("features")
        if isinstance(features, list):  # JSON has no tuples
            values = {**values, "features": tuple(features)}
        return cls(**values)

    def source(self) -> dict[str, Any]:
        """The settings of this class by name, for `Source(**settings)`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Source)}


@dataclass(frozen=True)
class ToScore(Source):
    """Where examples come from on which a trained model is scored: the test split.

    A source without one is test as a whole, and may lack classes that the model knows.
    """

    labels: tuple[str, ...] = ()
    """The classes that the model knows, in its order."""


@dataclass(frozen=True)
class TrainConfig(Source):
    """What determines a training run. The defaults are the `best` preset.

    Raises `InputError` for a value outside its range, naming it.
    """

    cell: Cell = "simple_rnn"
    """The recurrent cell."""
    units: int = 32
    """Size of the hidden state, of each layer and direction."""
    layers: int = 1
    """Recurrent layers; each reads the states of the one before."""
    bidirectional: bool = False
    """Each layer reads the sequence in both directions, with weights for each, and puts the states
    of both side by side."""
    activation: str = "auto"
    """Activation of the cell's output: any name of keras.activations that works per number.
    auto: elu for simple_rnn, tanh for lstm and gru."""
    recurrent_initializer: str = "auto"
    """How the state-to-state weights start: any name of keras.initializers.
    auto: identity for simple_rnn, orthogonal for lstm and gru."""
    normalize: NormalizeChoice = "auto"
    """How raw values become what the model sees. standard: mean 0 and deviation 1 for each feature;
    minmax: 0 to 1; both learned on the training split. auto: as the source says (mnist: 1/255), and
    standard where it says nothing. none: as they are."""
    dropout: float | Literal["auto"] = "auto"
    """Share of the inputs of each layer dropped while training, 0 to below 1. auto: 0.2 below
    10,000 training examples that have more than one feature, else 0."""
    recurrent_dropout: float = 0.0
    """Share of the hidden state dropped between time steps while training, 0 to below 1."""
    noise: float | Literal["auto"] = "auto"
    """Normal noise added to each number that the model reads while training: its deviation, as a
    share of that of the feature. auto: 0.3 below 10,000 training examples, else 0."""
    epochs: int | Literal["auto"] = "auto"
    """Passes over the training split. auto: as many as make 2,000 weight updates, but at least 10
    and at most 400 (mnist: 10). A small set needs many: 243 examples are 16 updates an epoch."""
    patience: int = 0
    """End training when the highest score of the objective is so many epochs old; which epoch is
    kept, --objective says in any case. The schedule still falls as if all epochs were to come.
    0: never."""
    objective: Objective = "accuracy"
    """What on the validation split says which epoch is kept. balanced_accuracy is the mean of the
    classes' recalls: where one class is frequent, the others count as much. accuracy and
    balanced_accuracy: where the schedule falls, the last epoch that chance may set apart from the
    highest (a 95 % confidence interval), else the highest. loss: the lowest."""
    class_weights: ClassWeights = "none"
    """What an example counts in the loss. balanced: n / (classes * examples of its class), so that
    rare classes count as much as frequent ones; none: each the same."""
    batch_size: int | Literal["auto"] = "auto"
    """Examples per weight update, of all devices and workers together. auto: 64; 32 below 1,024
    training examples and 16 below 512, so that a small set has some updates in an epoch."""
    optimizer: Optimizer = "soap"
    """How gradients become updates."""
    learning_rate: float | Literal["auto"] = "auto"
    """Peak learning rate. auto: 0.005; beyond 32 time steps 0.005 * 32 / timesteps, unless the
    activation keeps the state within bounds, as tanh does."""
    schedule: Schedule = "cosine"
    """How the learning rate falls from its peak: not at all, or to zero by the last step."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate first rises from zero, 0 to below 1."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; a larger one is scaled down. 0: no clipping."""
    weight_decay: float = 0.02
    """Decoupled weight decay per step, times the learning rate (not adam)."""
    precision: Precision = "auto"
    """Arithmetic of the recurrent layers; softmax and loss are always float32.
    auto: mixed_float16 on a GPU with tensor cores, in PyTorch for large layers, else float32."""
    seed: int = 1
    """Start of every random choice: weights, batch order, dropout. 0 to 4294967295."""
    deterministic: bool = False
    """Allow only operations that repeat bit for bit, also on a GPU. Slower."""
    fused: bool = True
    """Each epoch, or piece of a large one, is one compiled program where that is possible;
    no-fused: plain Keras fit.
    With --backend torch: one simple_rnn layer in one direction has its gradients written out;
    no-fused: autograd for all."""
    strategy: Strategy = "auto"
    """Several devices at once, each with its part of every batch. mirrored: all GPUs of this
    machine; multi_worker: all workers that the environment variable TF_CONFIG names; none: one
    device. auto: mirrored where there are several GPUs and the layers are large, else none."""
    backend: Backend = "keras"
    """What trains: keras, or torch (the extra of that name) for the same training in PyTorch, on
    one device and without recurrent_dropout or muon."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least = {"units": 1, "layers": 1, "patience": 0, "seed": 0}
        for name, least in at_least.items():
            _check(name, getattr(self, name) >= least, f"a whole number >= {least}", self)
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            _check(name, value == "auto" or value >= 1, "a whole number >= 1 or auto", self)
        _check("seed", self.seed < 2**32, "a whole number below 2**32", self)
        for name in ("recurrent_dropout", "warmup"):
            _check(name, 0 <= getattr(self, name) < 1, "0 <= value < 1", self)
        dropout, noise = self.dropout, self.noise
        _check("dropout", dropout == "auto" or 0 <= dropout < 1, "0 <= value < 1 or auto", self)
        fits = noise == "auto" or 0 <= noise < math.inf
        _check("noise", fits, "a number >= 0 or auto", self)
        rate = self.learning_rate
        fits = rate == "auto" or 0 < rate < math.inf
        _check("learning_rate", fits, "a positive number or auto", self)
        for name in ("clip_norm", "weight_decay"):
            _check(name, 0 <= getattr(self, name) < math.inf, "a number >= 0", self)
        if self.backend == "torch":
            self._check_torch()

    def _check_torch(self) -> None:
        """Refuse what PyTorch cannot do as Keras does."""
        for name, ok, expected in (
            ("recurrent_dropout", self.recurrent_dropout == 0, "0: PyTorch's layers have none"),
            # PyTorch's own computes in bfloat16, and is another function.
            ("optimizer", self.optimizer != "muon", "adam, adamw or soap"),
            ("strategy", self.strategy in ("auto", "none"), "auto or none"),
        ):
            if not ok:
                raise InputError(
                    f"--backend torch cannot have this {name}",
                    expected=expected,
                    got=getattr(self, name),
                    fix="Or leave --backend out.",
                )

    @property
    def cell_activation(self) -> str:
        """`activation`, with what `auto` stands for."""
        auto = CELLS[self.cell].activation
        return auto if self.activation == "auto" else self.activation

    @property
    def cell_initializer(self) -> str:
        """`recurrent_initializer`, with what `auto` stands for."""
        auto = CELLS[self.cell].recurrent_initializer
        return auto if self.recurrent_initializer == "auto" else self.recurrent_initializer

    def resolved(self, spec: SequenceSpec, examples: int) -> TrainConfig:
        """The settings for a training split of so many examples of `spec`, with what `auto` stands
        for in its place.

        `auto` stays where the machine decides, `precision` and `strategy`, and in `epochs` and
        `batch_size`, for which there are functions.
        """
        few = examples < FEW
        dropout, noise = self.dropout, self.noise
        if dropout == "auto":
            # A sequence without its only feature says nothing.
            dropout = DROPOUT if few and spec.features > 1 else 0.0
        if noise == "auto":
            noise = NOISE if few else 0.0
        return dataclasses.replace(
            self,
            activation=self.cell_activation,
            recurrent_initializer=self.cell_initializer,
            learning_rate=self.learning_rate_for(spec),
            dropout=dropout,
            noise=noise,
        )

    def learning_rate_for(self, spec: SequenceSpec) -> float:
        """The peak learning rate for data of `spec`, with what `auto` stands for."""
        if self.learning_rate != "auto":
            return self.learning_rate
        return LEARNING_RATE * self.share_of_a_step(spec)

    def epochs_for(self, examples: int) -> int:
        """The epochs for a training split of so many examples, with what `auto` stands for.

        What a training needs is updates, and their number in an epoch follows the examples.
        """
        if self.epochs != "auto":
            return self.epochs
        return min(max(-(-UPDATES // self.updates_an_epoch(examples)), LEAST_EPOCHS), MOST_EPOCHS)

    def batch_size_for(self, examples: int) -> int:
        """The examples of a batch out of so many, with what `auto` stands for."""
        if self.batch_size != "auto":
            return self.batch_size
        enough = (size for size in BATCH_SIZES if size * UPDATES_AN_EPOCH <= examples)
        return next(enough, BATCH_SIZES[-1])

    @property
    def largest_batch(self) -> int:
        """The examples of a batch, however many there are: what a process must be ready for."""
        return BATCH_SIZES[0] if self.batch_size == "auto" else self.batch_size

    def updates_an_epoch(self, examples: int) -> int:
        """Weight updates in an epoch of so many examples."""
        return -(-examples // self.batch_size_for(examples))

    def share_of_a_step(self, spec: SequenceSpec) -> float:
        """How much less a time step counts than in a short sequence: above 0, at most 1.

        A state without bounds adds up what it reads, and a recurrent weight acts on it once
        a time step: what an update does to the state grows with the length. For the weights'
        power over all time steps to stay near 1 they may leave the identity by about 1 / timesteps
        only (Li et al., "Independently Recurrent Neural Network (IndRNN)", 2018, bound them by the
        timesteps-th root of a constant). So the updates, and the weights that read the sum, are
        SHORT / timesteps of what they are in short sequences.
        """
        bounded = self.cell_activation in BOUNDED
        return 1.0 if bounded else min(1.0, SHORT / spec.longest)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _check(name: str, ok: bool, expected: str, config: Source) -> None:
    if not ok:
        raise InputError(f"bad {name}", expected=expected, got=repr(getattr(config, name)))


def type_of(name: str) -> Any:
    """The type of a setting; of one that takes a number or a word in its place, the number's."""
    return _alternatives(_types(TrainConfig)[name])[0]


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    """The type of each setting; to find them takes longer than to make a configuration."""
    return get_type_hints(kind)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _check_type(name: str, kind: Any, value: object) -> None:
    """Types and choices, for values that came from JSON or Python rather than a command line."""
    kind, *others = _alternatives(kind)
    if any(value is None if other is NoneType else value in get_args(other) for other in others):
        return
    if get_origin(kind) is tuple:
        if not (isinstance(value, tuple) and all(isinstance(each, str) for each in value)):
            raise InputError(f"bad {name}", expected="texts", got=repr(value))
        return
    choices = get_args(kind)
    if choices:
        if value not in choices:
            raise InputError(f"unknown {name} {value!r}", expected=f"one of {', '.join(choices)}")
        return
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"bad {name}", expected=kind.__name__, got=repr(value))


# What a preset changes in the defaults above. How good each is on MNIST, benchmarks.accuracy writes
# into README.md; how fast, benchmarks.training into docs/training-speed.md.
PRESETS: dict[str, TrainConfig] = {
    "best": TrainConfig(),
    "tutorial": TrainConfig(
        epochs=10,
        batch_size=64,
        activation="tanh",
        recurrent_initializer="orthogonal",
        dropout=0.0,
        noise=0.0,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        warmup=0.0,
        clip_norm=0.0,
        weight_decay=0.0,
    ),
}


def parse_fold(fold: str) -> tuple[int, int]:
    """`"2/5"` as (2, 5). Raises `InputError` for what is no fold."""
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count or count < 2:
        raise InputError("bad fold", expected="one of two or more, as in 2/5", got=repr(fold))
    return number, count


def preset(name: str) -> TrainConfig:
    """The configuration of a preset. Raises `InputError` for an unknown name."""
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}", expected=f"one of {', '.join(PRESETS)}")
    return PRESETS[name]
