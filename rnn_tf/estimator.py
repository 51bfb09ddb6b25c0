"""`SequenceClassifier`: training with scikit-learn's interface."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted
from sklearn.utils.validation import validate_data as validated

from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.data.sequences import first_steps, in_one_array, padded
from rnn_tf.data.spec import checked
from rnn_tf.data.splits import hold_out
from rnn_tf.errors import InputError
from rnn_tf.files.writing import writing
from rnn_tf.run import PROFILE, Run
from rnn_tf.startup import process
from rnn_tf.training.job import train

if TYPE_CHECKING:
    import keras

    from export.bundle import Bundle

DEFAULTS = TrainConfig()
# The parameters of `SequenceClassifier` that are no settings of training.
OWN = ("longest", "validation_share", "random_state")
# What scikit-learn lets pass: values as they are where they are uint8, else float32.
NUMBERS = {"dtype": [np.float32, np.uint8], "allow_nd": True}
# What a classifier keeps of its run, by the names of the files.
KEPT = ("model.keras", "metrics.json", "history.jsonl", PROFILE)
# Time steps of training examples that a classifier keeps: what int8 is calibrated with at export.
KEPT_STEPS = 20_000

# One training at a time in a process: Keras has one state for all threads.
_training = threading.Lock()


class SequenceClassifier(ClassifierMixin, BaseEstimator):
    """A recurrent classifier of sequences, `SimpleRNN`, `GRU` or `LSTM`, as scikit-learn has them.

    `X` is an array `(n, steps, features)`, or a list of arrays `(steps, features)` for sequences of
    different lengths. An array or table `(n, steps)` holds sequences of one feature, as in sktime,
    aeon and tslearn. `y` is what scikit-learn takes as classes: text or numbers.

    The parameters are the settings of `TrainConfig`, with its defaults, and

    - `longest`: sequences may have any length, and exported files read up to so many steps. None:
      as many as the longest in training, and where all of those are as long, all must be.
    - `validation_share`: share of the examples that is held out to choose the epoch, above 0 and
      below 1: of every class its share, whole groups where `fit` gets groups.
    - `random_state`: None, a whole number (the `seed` of `TrainConfig`), or a `RandomState`.

    After `fit` there are `classes_` `(classes,)`, the labels in the order of the probabilities;
    `spec_`, the `SequenceSpec`; `history_`, a record for each epoch; and for arrays and tables
    `n_features_in_`, which is scikit-learn's name for the length of the second axis: time steps.

    A fitted classifier is pickled without Keras: its model is the bytes of a `.keras` file, which
    holds no code. With it go the validation examples and up to 20,000 time steps of training
    examples, for `export`.

    It passes all of scikit-learn's `check_estimator`, which knows arrays of two axes only.
    """

    def __init__(
        self,
        *,
        cell: str = DEFAULTS.cell,
        units: int = DEFAULTS.units,
        layers: int = DEFAULTS.layers,
        bidirectional: bool = DEFAULTS.bidirectional,
        activation: str = DEFAULTS.activation,
        recurrent_initializer: str = DEFAULTS.recurrent_initializer,
        normalize: str = DEFAULTS.normalize,
        dropout: float | str = DEFAULTS.dropout,
        recurrent_dropout: float = DEFAULTS.recurrent_dropout,
        noise: float | str = DEFAULTS.noise,
        epochs: int | str = DEFAULTS.epochs,
        patience: int = DEFAULTS.patience,
        objective: str = DEFAULTS.objective,
        class_weights: str = DEFAULTS.class_weights,
        batch_size: int | str = DEFAULTS.batch_size,
        optimizer: str = DEFAULTS.optimizer,
        learning_rate: float | str = DEFAULTS.learning_rate,
        schedule: str = DEFAULTS.schedule,
        warmup: float = DEFAULTS.warmup,
        clip_norm: float = DEFAULTS.clip_norm,
        weight_decay: float = DEFAULTS.weight_decay,
        precision: str = DEFAULTS.precision,
        deterministic: bool = DEFAULTS.deterministic,
        backend: str = DEFAULTS.backend,
        longest: int | None = None,
        validation_share: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.cell = cell
        self.units = units
        self.layers = layers
        self.bidirectional = bidirectional
        self.activation = activation
        self.recurrent_initializer = recurrent_initializer
        self.normalize = normalize
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.noise = noise
        self.epochs = epochs
        self.patience = patience
        self.objective = objective
        self.class_weights = class_weights
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.clip_norm = clip_norm
        self.weight_decay = weight_decay
        self.precision = precision
        self.deterministic = deterministic
        self.backend = backend
        self.longest = longest
        self.validation_share = validation_share
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """Train on `X` and `y` `(n,)`, and keep the model of the best epoch.

        Of `groups` `(n,)`, whole numbers or text, none is both trained on and held out for
        validation. Warns (`ConvergenceWarning`) when the loss diverged. Raises `InputError`, which
        is a `ValueError`, for bad parameters and data, and `CheckFailed` when training gives no
        model.
        """
        config = self._config()
        for name in ("n_features_in_", "feature_names_in_"):  # of another fit
            if hasattr(self, name):
                delattr(self, name)
        x, lengths = self._sequences(X, None)
        classes, places = _classes(_labels(y))
        check_consistent_length(x, places, groups)
        if groups is not None:
            groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        split = Split(x, places, lengths, groups)
        steps = x.shape[1] if lengths is None else None
        labels = tuple(map(str, classes.tolist()))
        spec = SequenceSpec(steps, x.shape[2], labels, longest=x.shape[1])
        learned, held_out = hold_out(split, max(int(len(places) * self.validation_share), 1))
        # Nothing is left for a test: scikit-learn's users do that themselves.
        data = SequenceData(spec, learned, held_out, split.take(slice(0)))
        self._trained = _train(config, data)
        self.classes_, self.spec_ = classes, self._trained.spec
        self.history_ = self._trained.history
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The probability of each class for each sequence: float32 `(n, classes)`.

        Where lengths vary, they may be longer than those in training: the network reads on, step by
        step, and a test must show how well. Exported files refuse longer ones. Raises `InputError`,
        which is a `ValueError`, for sequences that do not fit.
        """
        check_is_fitted(self, "spec_")
        return self._trained.probabilities(*self._sequences(X, self.spec_))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable class of each sequence, `(n,)`. Raises as `predict_proba` does."""
        places = self.predict_proba(X).argmax(axis=1)
        classes: np.ndarray = self.classes_[places]
        return classes

    def export(self, path: Path | str, X: Any = None, y: Any = None, **options: Any) -> Bundle:  # noqa: N803
        """Export to a bundle in `path`: every format verified against the model, then published.

        They are verified on `X` and `y`, without them on the validation examples. Those are kept
        beside the bundle as `<path>-examples.npz`, for `rnn-tf verify`. `options`, and what is
        raised, are those of `export.publish.export_run`: `formats`, `quantize`, `opset`, `say`.
        """
        # Not above: training needs nothing of it. The bundle is the way out of this package.
        from export.publish import export_run

        check_is_fitted(self, "spec_")
        path, trained = Path(path), self._trained
        if path.name in ("", ".."):  # no name that a file could be beside
            path = path.resolve()
        examples = path.with_name(f"{path.name}-examples.npz")
        test = trained.held_out
        if X is not None:
            x, lengths = self._sequences(X, self.spec_)
            places = self._places(_labels(y))
            check_consistent_length(x, places)
            if lengths is not None:
                _check_length(int(lengths.max()), self.spec_.longest)
            test = Split(x, places, lengths)
        data = SequenceData(self.spec_, trained.learned, trained.held_out, test)
        with trained.run(dataset=str(examples)) as run:
            bundle = export_run(run, path, data=data, **options)
        _write(examples, data)
        return bundle

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _config(self) -> TrainConfig:
        """The parameters as settings. Raises `InputError` for bad ones."""
        share: Any = self.validation_share
        longest: Any = self.longest
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise InputError("bad validation_share", expected="0 < value < 1", got=repr(share))
        if longest is not None and not (isinstance(longest, (int, np.integer)) and longest >= 1):
            raise InputError("bad longest", expected="a whole number >= 1", got=repr(longest))
        settings = {
            # A search gives NumPy's numbers.
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
            if name not in OWN
        }
        if isinstance(self.random_state, (int, np.integer)):
            seed = int(self.random_state)
        else:
            seed = int(check_random_state(self.random_state).randint(2**31))
        return TrainConfig("arrays", seed=seed, **settings)

    def _sequences(
        self, given: Any, spec: SequenceSpec | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """`X` as raw values `(n, longest, features)`, with lengths where they vary.

        `spec` is what a fitted model reads; without, `X` is what it is fitted to.
        """
        given = in_one_array(given)
        any_length = self.longest is not None if spec is None else spec.varies
        if isinstance(given, list):
            lengths = np.array([len(each) for each in given], np.int32)
            if spec is not None and not any_length:
                raise _other_steps(spec, f"{lengths.min()} to {lengths.max()}", lengths.max())
            values = check_array(np.concatenate(given), estimator=self, input_name="X", **NUMBERS)
        else:
            x = self._array(given, spec, any_length=any_length)
            if not any_length:
                return x, None
            lengths, values = np.full(len(x), x.shape[1], np.int32), x.reshape(-1, x.shape[2])
        _check_features(spec, values.shape[1])
        longest = int(lengths.max())
        if spec is not None:
            # Few widths: each is a program that has to be compiled.
            longest = -(-longest // spec.longest) * spec.longest
        elif self.longest is not None:
            _check_length(longest, self.longest)
            longest = self.longest
        return padded(values, lengths, longest), lengths

    def _array(self, given: Any, spec: SequenceSpec | None, *, any_length: bool) -> np.ndarray:
        """`X` that is no list, as an array `(n, steps, features)`."""
        shape: tuple[int, ...] = getattr(given, "shape", ())
        if spec is not None and not any_length and len(shape) == 3 and shape[1] != spec.longest:
            raise _other_steps(spec, shape[1], shape[1])
        if any_length:  # any number of columns will do
            x = check_array(given, estimator=self, input_name="X", **NUMBERS)
        else:
            x = validated(self, given, reset=spec is None, **NUMBERS)
        array: np.ndarray = x[..., np.newaxis] if x.ndim == 2 else x
        if array.ndim != 3 or 0 in array.shape:
            raise InputError(
                "bad shape of X", expected="(n, steps, features), each at least 1", got=array.shape
            )
        _check_features(spec, array.shape[2])
        return array

    def _places(self, y: np.ndarray) -> np.ndarray:
        """The place of each label in `classes_`, int32 `(n,)`."""
        known = np.isin(y, self.classes_)
        if not known.all():
            raise InputError(
                "y has a class that the model does not know",
                expected=", ".join(self.spec_.labels), got=y[~known][0],
            )  # fmt: skip
        return np.searchsorted(self.classes_, y).astype(np.int32)


def _labels(y: Any) -> np.ndarray:
    """`y` as an array `(n,)` without missing labels."""
    labels = column_or_1d(y, warn=True)
    checked_labels: np.ndarray = check_array(labels, ensure_2d=False, dtype=None, input_name="y")
    return checked_labels


def _classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes, sorted, and the place of each label among them, int32 `(n,)`."""
    check_classification_targets(y)
    classes, places = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError("too few classes in y", expected="at least 2", got="1 class")
    return classes, places.astype(np.int32)


def _check_features(spec: SequenceSpec | None, features: int) -> None:
    if spec is not None and features != spec.features:
        raise InputError(
            "X has other features than in fit", expected=f"{spec.features} a step", got=features
        )


def _check_length(got: int, longest: int) -> None:
    if got > longest:
        raise InputError(
            "a sequence is longer than exported files read", expected=f"at most {longest} steps",
            got=got, fix=f"Fit SequenceClassifier(longest={got}).",
        )  # fmt: skip


def _other_steps(spec: SequenceSpec, got: object, longest: int) -> InputError:
    return InputError(
        "X has other steps than in fit", expected=f"{spec.longest} in each sequence", got=got,
        fix=f"Fit SequenceClassifier(longest={max(longest, spec.longest)}), which reads sequences "
        "of any length.",
    )  # fmt: skip


@dataclass
class _Trained:
    """A trained model as plain values: what a run holds, and some of the examples."""

    config: TrainConfig
    spec: SequenceSpec
    history: list[dict[str, Any]]
    files: dict[str, bytes]  # by the names that a run has for them
    learned: Split  # some of what it was trained on
    held_out: Split
    # The model in memory, by the width of the arrays that it reads.
    _models: dict[int, keras.Sequential] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_models": {}}

    def probabilities(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Of raw `x` `(n, steps, features)`: where lengths vary, of as many steps as it has."""
        spec = self.spec
        if spec.varies:
            spec = replaced(spec, longest=x.shape[1])
        examples = checked(Split(x, np.zeros(len(x), np.int32), lengths), "X", spec)
        process.start()
        from rnn_tf.training.keras.backend import probabilities

        if spec.longest not in self._models:
            self._models[spec.longest] = self._model(spec)
        return probabilities(self._models[spec.longest], examples, spec)

    def _model(self, spec: SequenceSpec) -> keras.Sequential:
        """The trained model for sequences of `spec`, which may be longer than those in training."""
        from rnn_tf.model.classifier import build_model

        with self.run(self.config.dataset) as run:
            trained = run.load_model()
        if spec == self.spec:
            return trained
        model = build_model(self.config, spec)
        model.set_weights(trained.get_weights())
        return model

    @contextlib.contextmanager
    def run(self, dataset: str) -> Iterator[Run]:
        """The run again, in a temporary folder, as one that was trained on `dataset`."""
        with tempfile.TemporaryDirectory() as folder:
            config = replaced(self.config, dataset=dataset)
            run = Run.create(Path(folder) / "run", config, self.spec)
            for name, content in self.files.items():
                (run.path / name).write_bytes(content)
            yield run


def _train(config: TrainConfig, data: SequenceData) -> _Trained:
    with tempfile.TemporaryDirectory() as folder, _training:
        run = train(config, Path(folder) / "run", data=data, evaluate=False, progress=False)
        if stopped := run.metrics["stopped"]:
            warnings.warn(
                f"{stopped}; the best epoch before that was kept", ConvergenceWarning, stacklevel=3
            )
        return _Trained(
            config,
            run.spec,
            run.history,
            {name: (run.path / name).read_bytes() for name in KEPT},
            first_steps(data.train, KEPT_STEPS),
            data.valid,
        )


def _write(path: Path, data: SequenceData) -> None:
    """Write a data set as an `.npz` that `--dataset` takes."""
    arrays = {"labels": np.array(data.spec.labels)}
    for name, split in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        arrays |= {f"x_{name}": split.x, f"y_{name}": split.y}
        if split.lengths is not None:
            arrays[f"lengths_{name}"] = split.lengths
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
