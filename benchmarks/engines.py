"""`python -m benchmarks.engines`: does every engine say the same of our ONNX files?

Models of every cell, with few and many time steps, one layer and two read both ways, answer 1, 7
and 64 sequences and are held against the formulas in float64. Each engine is a process of its own
for each model, since some end with a model that they do not take. What is not installed is skipped.

    pip install onnx onnxruntime openvino tract
    npm install --prefix FOLDER onnxruntime-node onnxruntime-web

Other releases come from other environments: `--python other/bin/python`, as often as needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from export import oracle
from export.formats import onnx_graph
from export.formats.format import OPSET
from export.network import Layer, Network, Recurrence
from rnn_tf.command import arguments, parse
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import one_line_errors
from rnn_tf.model.cells import CELLS, Cell

BATCHES = (1, 7, 64)
FEATURES, UNITS, CLASSES = 5, 8, 3
ACTIVATIONS: dict[Cell, tuple[str, ...]] = {
    "simple_rnn": ("elu", "tanh", "gelu"), "lstm": ("tanh", "gelu"), "gru": ("tanh", "elu"),
}  # fmt: skip
# More than float32 rounding of these models: 1e-7.
MOST_DIFFERENCE = 1e-5

# Each is a program that loads the model `m` and maps `x` to `y`; `version` is that of the engine.
# Its name is what has to be installed.
ENGINES = {
    "onnxruntime": """
import onnxruntime
version = onnxruntime.__version__
session = onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"])
classify = lambda x: session.run(None, {"sequence": x})[0]
""",
    "openvino": """
import openvino
version = openvino.__version__.partition("-")[0]
model = openvino.Core().compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
classify = lambda x: model([x])[0]
""",
    "onnx": """
import onnx.reference
version = onnx.__version__ + " (reference evaluator)"
evaluator = onnx.reference.ReferenceEvaluator(m)
classify = lambda x: evaluator.run(None, {"sequence": x})[0]
""",
    "tract": """
import tract
version = tract.version()
def classify(x):
    model = tract.onnx().load(m)
    model.set_input_fact(0, f"{len(x)},{x.shape[1]},{x.shape[2]},f32")
    return model.into_model().into_runnable().run([x])[0].to_numpy()
""",
}
PYTHON = """
import sys
import numpy
m, folder = sys.argv[1:]
{engine}
x = numpy.load(folder + "/x.npy")
for batch in {batches}:
    numpy.asarray(classify(x[:batch]), "float32").tofile(f"{{folder}}/{{batch}}")
print(version)
"""
NODE = """
const [engine, m, folder] = process.argv.slice(1);
const fs = require("fs"), ort = require(engine);
(async () => {{
  const session = await ort.InferenceSession.create(fs.readFileSync(m));
  const x = new Float32Array(new Uint8Array(fs.readFileSync(folder + "/x")).buffer);
  for (const batch of {batches}) {{
    const shape = [batch, {timesteps}, {features}];
    const part = x.slice(0, shape.reduce((a, b) => a * b));
    const answer = await session.run({{ sequence: new ort.Tensor("float32", part, shape) }});
    fs.writeFileSync(`${{folder}}/${{batch}}`, Buffer.from(answer.probabilities.data.buffer));
  }}
  console.log(JSON.parse(fs.readFileSync(engine + "/package.json")).version);
}})();
"""


@dataclass(frozen=True)
class Engine:
    """An engine in one environment: a Python, or a folder of node modules."""

    name: str
    where: Path

    def command(self, folder: Path, timesteps: int) -> list[str]:
        """What runs the model in `folder` on the input that is there."""
        model = str(folder / "model.onnx")
        if self.name in ENGINES:
            code = PYTHON.format(engine=ENGINES[self.name], batches=BATCHES)
            return [str(self.where), "-c", code, model, str(folder)]
        code = NODE.format(batches=list(BATCHES), timesteps=timesteps, features=FEATURES)
        # An absolute path: a module that is only named is looked for beside the program.
        return [
            "node",
            "-e",
            code,
            str(self.where / "node_modules" / self.name),
            model,
            str(folder),
        ]


@dataclass(frozen=True)
class Command:
    """Hold every ONNX engine that is installed against the formulas in float64."""

    python: list[Path] = field(default_factory=lambda: [Path(sys.executable)])
    """Environments in which to look for engines: their `python`."""
    node: Path | None = None
    """A folder with node_modules, for onnxruntime-node and onnxruntime-web."""


def engines(command: Command) -> Iterator[Engine]:
    for python in command.python:
        for name in ENGINES:
            command_line = [str(python), "-c", f"import {name}"]
            found = subprocess.run(command_line, capture_output=True, check=False)  # noqa: S603
            if found.returncode == 0:
                yield Engine(name, python)
            else:
                print(f"skipped: no {name} in {python}", file=sys.stderr)
    if command.node is None or shutil.which("node") is None:
        print("skipped: node, without --node FOLDER", file=sys.stderr)
        return
    for name in ("onnxruntime-node", "onnxruntime-web"):
        if (command.node / "node_modules" / name).is_dir():
            yield Engine(name, command.node.resolve())
        else:
            print(f"skipped: no {name} in {command.node}", file=sys.stderr)


def networks() -> Iterator[tuple[str, Network]]:
    """Name and network of everything that is asked."""
    for cell, activations in ACTIVATIONS.items():
        for activation in activations:
            for timesteps in (28, 100):
                for layers, both in ((1, False), (2, True)):
                    name = f"{cell} {activation} {timesteps} steps" + " 2 layers, both" * both
                    yield name, network(cell, activation, timesteps, layers, both)


def network(cell: Cell, activation: str, timesteps: int, layers: int, both: bool) -> Network:
    """A classifier with random weights."""
    random = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return random.normal(0, 0.2, shape).astype(np.float32)

    def direction(inputs: int) -> Recurrence:
        columns, kind = len(CELLS[cell].gates) * UNITS, CELLS[cell]
        return Recurrence(
            cell, activation, kind.recurrent_activation,
            array(inputs, columns), array(UNITS, columns),
            array(2, columns) if kind.biases == 2 else array(columns),
        )  # fmt: skip

    width = UNITS * (1 + both)
    inputs = [FEATURES, *[width] * (layers - 1)]
    return Network(
        SequenceSpec(timesteps, FEATURES, tuple("abc")),
        tuple(Layer(*(direction(each) for _ in range(1 + both))) for each in inputs),
        array(width, CLASSES),
        array(CLASSES),
    )


def ask(engine: Engine, network: Network, folder: Path) -> tuple[str, float | str]:
    """The engine's version, and its largest difference from the formulas or what it says."""
    timesteps = network.spec.longest
    x = np.random.default_rng(1).normal(size=(max(BATCHES), timesteps, FEATURES))
    x = x.astype(np.float32)
    np.save(folder / "x.npy", x)
    x.tofile(folder / "x")
    onnx.save(onnx_graph.build(network, OPSET), folder / "model.onnx")
    command = engine.command(folder, timesteps)
    done = subprocess.run(  # noqa: S603 - programs of this file
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return "", lines[-1][:100] if lines else f"exit code {done.returncode}"
    exact = oracle.probabilities(network, x)
    difference = max(
        float(np.abs(_answer(folder, batch) - exact[:batch]).max()) for batch in BATCHES
    )
    return done.stdout.split("\n")[0], difference


def _answer(folder: Path, batch: int) -> np.ndarray:
    return np.fromfile(folder / str(batch), np.float32).reshape(batch, CLASSES)


@one_line_errors
def main() -> int:
    command = parse(Command, arguments(None), "python -m benchmarks.engines")
    right = True
    for engine in engines(command):
        version, worst, models, refused = "", 0.0, 0, []
        for name, asked in networks():
            with tempfile.TemporaryDirectory() as folder:
                told, found = ask(engine, asked, Path(folder))
            if isinstance(found, str):
                refused.append(f"  {name}: {found}")
                continue
            version, worst, models = told, max(worst, found), models + 1
        print(f"{engine.name} {version}: {models} models, largest difference {worst:.1e}")
        print("\n".join(refused), end="\n" if refused else "", flush=True)
        right = right and not refused and worst <= MOST_DIFFERENCE
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
