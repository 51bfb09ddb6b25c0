"""`python -m benchmarks.shapes`: an epoch at the sizes people use, beside what they would write.

Every way trains in a process of its own, which waits while another is timed: epochs of all ways
alternate, round after round, so that a machine whose speed drifts is the same for all. Examples are
noise, of which speed does not depend; Adam, float32.

With `--gpu`, on a GPU of CUDA: `--backend torch`, beside PyTorch's usual loops and JAX. That needs
no TensorFlow. With `--forms`, this package alone: in the form that it chooses for a layer, and in
each that RNN_TF_FORM can ask for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np

from benchmarks import documents
from benchmarks.training import CLASSES, epoch_operations, matrix_product_rate
from rnn_tf.command import arguments, parse
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.files.writing import write_text
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.startup import forms

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import keras

    from rnn_tf.config import TrainConfig
    from rnn_tf.data.spec import SequenceData

Sequences = Literal["rows", "pixels"]
# Steps and features: an MNIST digit row by row, and pixel by pixel.
FRAMES: dict[Sequences, tuple[int, int]] = {"rows": (28, 28), "pixels": (784, 1)}
# Updates of an epoch, for about a second in the slowest of these; a small layer has more of them.
UPDATES = {"rows": 40, "pixels": 4}
OURS = "rnn_tf"


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    cell: Cell
    units: int
    batch: int
    sequences: Sequences
    gpu: bool = False

    @property
    def examples(self) -> int:
        """Those of an epoch."""
        # A GPU takes hardly longer for a large layer than for a small one.
        times = 8 if self.gpu else max(1, 256 // self.units)
        return self.batch * UPDATES[self.sequences] * times

    @property
    def operations(self) -> float:
        """Floating-point operations of an epoch."""
        gates = len(CELLS[self.cell].gates)
        return epoch_operations(self.examples, *FRAMES[self.sequences], self.units, gates)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Examples `(n, timesteps, features)`, uint8 as MNIST's, and labels `(n,)`."""
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (self.examples, *FRAMES[self.sequences]), dtype=np.uint8)
        return x, random.integers(0, CLASSES, self.examples).astype(np.int32)

    def __str__(self) -> str:
        return f"{self.cell} {self.units}, batch {self.batch}, {self.sequences}"


@dataclass
class Timed:
    """What a shape took, in each way."""

    shape: Shape
    first: dict[str, float] = field(default_factory=dict)  # seconds of the first epoch
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of later ones

    def median(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    @property
    def peers(self) -> list[str]:
        return [way for way in self.seconds if not way.startswith(OURS)]

    @property
    def ahead(self) -> float:
        """How many times as long as ours the fastest peer takes."""
        return min(self.median(way) for way in self.peers) / self.median(OURS)


@dataclass(frozen=True)
class Command:
    """Time epochs of many cells, sizes and batches: this package, plain Keras, PyTorch and JAX."""

    cells: tuple[Cell, ...] = ("simple_rnn", "lstm", "gru")
    """Which cells."""
    units: tuple[int, ...] = (32, 64, 128, 256)
    """Which numbers of units."""
    batches: tuple[int, ...] = (64, 256)
    """Which batch sizes."""
    sequences: tuple[Sequences, ...] = ("rows", "pixels")
    """28 steps of 28 features, 784 steps of 1."""
    rounds: int = 3
    """How often each way trains an epoch, after its first."""
    json: Path | None = None
    """Also write every figure here, after each shape."""
    write: bool = False
    """Write the table into the documents of this checkout."""
    gpu: bool = False
    """Train on a GPU of CUDA: --backend torch, PyTorch and JAX."""
    forms: bool = False
    """Compare the forms in which this package can train on a CPU, and no peers."""
    without: tuple[str, ...] = ()
    """Peers to leave out, as the table calls them: one may take minutes for a shape."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks.shapes") -> int:
    command = parse(Command, arguments(argv), prog)
    shapes = itertools.product(command.cells, command.units, command.batches, command.sequences)
    kind = _without(_kind(command), command.without)
    # Of a GPU it would say little: no product of these fills it.
    rate = None if command.gpu else matrix_product_rate()
    found = []
    for each in shapes:
        found.append(measure(Shape(*each, command.gpu), kind, command.rounds))
        print("  ".join(row(found[-1], kind, rate)), file=sys.stderr)
        if command.json:
            write_text(command.json, json.dumps(list(map(dataclasses.asdict, found)), indent=2))
    table = documents.table(head(kind, rate), [row(timed, kind, rate) for timed in found])
    print(table)
    if command.write:
        documents.put(kind.document, kind.place, table)
    return 0


def _kind(command: Command) -> Kind:
    """What is compared. Raises `InputError` where that cannot be."""
    if command.forms and command.gpu:
        raise InputError("--forms are those of a CPU", fix="Leave out --gpu.")
    if command.gpu:
        _check_gpu()
        return ON_GPU
    return IN_FORMS if command.forms else ON_CPU


def measure(shape: Shape, kind: Kind, rounds: int) -> Timed:
    """Time every way that can run here."""
    timed = Timed(shape)
    workers = [
        _Worker(kind.place, way, shape)
        for way, (_, package) in kind.ways.items()
        if _is_there(package)
    ]
    try:
        for worker in workers:
            timed.first[worker.way] = worker.epoch()
        for worker in workers * rounds:
            timed.seconds.setdefault(worker.way, []).append(worker.epoch())
    finally:
        for worker in workers:
            worker.end()
    return timed


def _without(kind: Kind, left_out: Sequence[str]) -> Kind:
    """The kind with fewer peers. Raises `InputError` for what is none."""
    peers = [way for way in kind.ways if not way.startswith(OURS)]
    unknown = set(left_out) - set(peers)
    if unknown:
        raise InputError(
            "bad --without", expected=f"some of {', '.join(peers)}", got=", ".join(sorted(unknown))
        )
    return kind._replace(ways={w: how for w, how in kind.ways.items() if w not in left_out})


def _check_gpu() -> None:
    """Raise `InputError` unless PyTorch can use one of CUDA."""
    version = None
    if _is_there("torch"):
        import torch

        if torch.cuda.is_available():
            return
        version = torch.__version__
    raise InputError("--gpu needs a PyTorch that finds a GPU of CUDA", got=version or "no PyTorch")


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def head(kind: Kind, rate: float | None) -> list[str]:
    """What stands above the columns of `row`."""
    names = ["cell, units, batch, sequences", *kind.ways, f"fastest {kind.others}"]
    return [*names, *([] if rate is None else ["arithmetic"]), "first epoch"]


def row(timed: Timed, kind: Kind, rate: float | None) -> list[str]:
    """Seconds of ours; how many times as long each peer takes, and ours as the arithmetic alone.

    `rate` is that of the arithmetic in operations a second; None leaves this column out.
    """
    ours = timed.median(OURS)
    ratios = [
        f"{timed.median(way) / ours:.2f}x" if way in timed.seconds else "-"
        for way in kind.ways
        if way != OURS
    ]
    floor = [] if rate is None else [f"{ours / (timed.shape.operations / rate):.1f}x"]
    return [
        str(timed.shape),
        f"{ours:.3f} s",
        *ratios,
        f"{timed.ahead:.2f}x",
        *floor,
        f"+{timed.first[OURS] - ours:.1f} s",
    ]


class _Worker:
    """A process that trains in one way, an epoch whenever it is asked."""

    def __init__(self, place: str, way: str, shape: Shape) -> None:
        self.way = way
        line = [sys.executable, "-m", "benchmarks.shapes", SERVE, place, way]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [*line, json.dumps(dataclasses.asdict(shape))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip

    def epoch(self) -> float:
        """Have it train an epoch; the seconds that it took."""
        asked, said = cast("tuple[IO[str], IO[str]]", (self.process.stdin, self.process.stdout))
        try:
            asked.write("\n")
            asked.flush()
            for line in said:
                if line.startswith(TOOK):
                    return float(line.removeprefix(TOOK))
        except BrokenPipeError:
            pass
        self.errors.seek(0)
        raise CheckFailed(f"{self.way} has ended: {self.errors.read().decode()[-500:]}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


# --- in the process of a way ---
# The word that has this module train, and the beginning of a line that says how long it took.
SERVE, TOOK = "--serve", "took "


def _asked() -> Iterator[None]:
    """Once for each epoch that is asked for."""
    for _ in sys.stdin:
        began = time.perf_counter()
        yield
        print(f"{TOOK}{time.perf_counter() - began}", flush=True)


def _serve(place: str, way: str, shape: str) -> None:
    """Train in a way what `shape` says, as JSON."""
    kind = next(kind for kind in (ON_CPU, ON_GPU, IN_FORMS) if kind.place == place)
    train, _ = kind.ways[way]
    train(Shape(**json.loads(shape)))


def _callback() -> keras.callbacks.Callback:
    """Has Keras begin an epoch when one is asked for, and end with the last."""
    import keras

    class WhenAsked(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.asked = _asked()

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if next(self.asked, 0) == 0:
                sys.exit()

    return WhenAsked()


def _ours(shape: Shape, *, form: forms.Form | None = None) -> None:
    """As `train` does from a program, with validation, history and checkpoint in each epoch."""
    if form is not None:
        os.environ[forms.FORM] = form
    from rnn_tf import train
    from rnn_tf.run import Run
    from rnn_tf.training import job
    from rnn_tf.training.keras.backend import KerasBackend
    from rnn_tf.training.recorder import Fitted

    class WhenAsked(KerasBackend):
        def fit(
            self,
            run: Run,
            data: SequenceData,
            callbacks: Sequence[keras.callbacks.Callback],
            beside: Executor | None = None,
        ) -> Fitted:
            return super().fit(run, data, [*callbacks, _callback()], beside)

    config = dataclasses.replace(_config(shape), epochs=1_000_000)
    job.start(config)
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", data=_data(shape), evaluate=False, backend=WhenAsked())


def _config(shape: Shape) -> TrainConfig:
    from rnn_tf.config import PRESETS

    return dataclasses.replace(
        PRESETS["tutorial"], cell=shape.cell, units=shape.units, batch_size=shape.batch
    )


def _data(shape: Shape) -> SequenceData:
    from rnn_tf.data.normalize import Normalize
    from rnn_tf.data.spec import SequenceData, SequenceSpec, Split

    x, y = shape.arrays()
    labels = tuple(map(str, range(CLASSES)))
    spec = SequenceSpec(*FRAMES[shape.sequences], labels, Normalize((1 / 255,)))
    few = Split(x[:64], y[:64])
    return SequenceData(spec, Split(x, y), few, few)


def _ours_in_torch(shape: Shape, *, precision: str = "float32") -> None:
    """The epochs of `--backend torch`, without what is kept of them.

    Where there is no TensorFlow, Keras makes the first weights with PyTorch.
    """
    if not _is_there("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "torch")
    from rnn_tf.training.torch.fit import Training

    data = _data(shape)
    config = _config(shape).resolved(data.spec, len(data.train.y))
    training = Training(config, data, precision)
    for epoch, _ in enumerate(_asked()):
        # As many as the settings say are planned for.
        training.epoch(epoch % training.epochs)


def _plain_keras(shape: Shape) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from benchmarks.plain_keras import CELLS as LAYERS

    x, y = shape.arrays()
    model = keras.Sequential(
        [
            keras.Input(FRAMES[shape.sequences]),
            LAYERS[shape.cell](shape.units),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x / np.float32(255), y, batch_size=shape.batch, epochs=1_000_000, verbose=0,
        callbacks=[_callback()],
    )  # fmt: skip


def _torch(shape: Shape, *, threads: int | None = None) -> None:
    import torch

    from benchmarks.plain_torch_arrays import Classifier, train_epoch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    x, y = shape.arrays()
    inputs, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y).long()
    model = Classifier(shape.cell, features=x.shape[2], units=shape.units)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in _asked():
        train_epoch(model, optimizer, inputs, labels, shape.batch)


def _torch_on_gpu(shape: Shape, *, loader: bool = False) -> None:
    import torch

    from benchmarks.plain_torch_arrays import Classifier, train_batch, train_epoch

    x, y = shape.arrays()
    inputs, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y).long()
    model = Classifier(shape.cell, features=x.shape[2], units=shape.units).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    on_gpu = inputs.cuda(), labels.cuda()
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, labels), shape.batch, shuffle=True
    )
    for _ in _asked():
        if loader:
            for a, b in batches:
                train_batch(model, optimizer, a.cuda(), b.cuda())
        else:
            train_epoch(model, optimizer, *on_gpu, shape.batch)
        torch.cuda.synchronize()


def _jax(shape: Shape) -> None:
    import jax

    from benchmarks import jax_scan

    x, y = map(jax.numpy.asarray, shape.arrays())
    state = jax_scan.start(jax.random.key(1), x.shape[2], shape.units, shape.cell)
    train = jax.jit(functools.partial(jax_scan.epoch, cell=shape.cell))
    random = np.random.default_rng(1)
    for _ in _asked():
        state = train(state, x, y, jax_scan.shuffled(len(y), random, shape.batch))
        jax.block_until_ready(state)


# What trains in a way, and the package that it needs.
Ways = dict[str, tuple[Callable[[Shape], None], str]]


class Kind(NamedTuple):
    """The ways that are compared, and where their table stands."""

    ways: Ways
    document: str
    place: str
    others: str = "peer"  # what each but the first is


ON_CPU = Kind(
    {
        OURS: (_ours, "tensorflow"),
        "plain Keras": (_plain_keras, "keras"),
        "PyTorch, 1 thread": (functools.partial(_torch, threads=1), "torch"),
        "PyTorch, all threads": (_torch, "torch"),
        "JAX": (_jax, "jax"),
    },
    "docs/training-speed.md",
    "benchmarks.shapes",
)
ON_GPU = Kind(
    {
        OURS: (_ours_in_torch, "torch"),
        "rnn_tf, mixed_float16": (
            functools.partial(_ours_in_torch, precision="mixed_float16"),
            "torch",
        ),
        "PyTorch, DataLoader": (functools.partial(_torch_on_gpu, loader=True), "torch"),
        "PyTorch, arrays": (_torch_on_gpu, "torch"),
        "JAX": (_jax, "jax"),
    },
    "docs/pytorch.md",
    "benchmarks.shapes, GPU",
)
# The first is what the package chooses.
IN_FORMS = Kind(
    {
        OURS: (_ours, "tensorflow"),
        **{form: (functools.partial(_ours, form=form), "tensorflow") for form in forms.FORMS},
    },
    "docs/training-speed.md",
    "benchmarks.shapes, forms",
    others="form",
)


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        _serve(*sys.argv[2:])
    else:
        raise SystemExit(main())
