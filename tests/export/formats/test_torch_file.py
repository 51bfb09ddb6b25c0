"""`model.safetensors` and its module answer as the oracle does, in PyTorch alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, refusal
from networks import (
    FAR_FROM_ZERO,
    LENGTHS,
    LONG,
    SPEC,
    STACKS,
    UNITS,
    UNITS_OF_MEASURE,
    VARYING,
    changed,
    random_network,
    raw_input,
    stacked_network,
    with_padding,
)

from export import example, oracle
from export.__main__ import main
from export.bundle import Bundle
from export.formats import pytorch_readme
from export.network import Network
from export.predict import main as predict
from export.publish import describe, export_run
from export.runtimes import open_runtime
from export.signatures import classify
from export.verify import verify_bundle
from rnn_tf import Run
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
safetensors = pytest.importorskip("safetensors", reason="safetensors is in the extra `torch`")
pytestmark = pytest.mark.torch

from export.formats import pytorch  # noqa: E402 - needs torch
from export.formats.pytorch import TorchRuntime  # noqa: E402
from rnn_tf.training.torch.module import ACTIVATIONS  # noqa: E402

# float32 rounding with states below 10: 1e-7 seen.
ROUNDING = 1e-6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def torch_bundle(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small model with PyTorch as its only format. Read it, do not change it."""
    return export_run(small_run, tmp_path_factory.mktemp("torch") / "small", formats=("torch",))


# --- what it computes ---
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_cell_with_every_activation(cell: Cell, activation: str, path: Path) -> None:
    network = random_network(cell, activation)
    pytorch.write(network, path)
    runtime = TorchRuntime(path, SPEC)
    for batch in (1, 7, 64):
        x = raw_input(batch)
        found = runtime.predict(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, oracle.probabilities(network, x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("cell", CELLS)
def test_gates_may_have_another_activation(cell: Cell, path: Path) -> None:
    gates = "linear" if cell == "simple_rnn" else "hard_sigmoid"
    network = changed(random_network(cell, spec=LONG), recurrent_activation=gates)
    pytorch.write(network, path)
    x = raw_input(20, LONG)
    found = TorchRuntime(path, LONG).predict(x)
    np.testing.assert_allclose(found, oracle.probabilities(network, x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("timesteps", [1, SPEC.longest, *LENGTHS])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_stacks_answer_as_the_oracle_does(
    cell: Cell, stack: str, timesteps: int, path: Path
) -> None:
    for activation in ("tanh", "elu"):  # a layer of PyTorch, and a loop
        network = stacked_network(cell, stack, timesteps)
        options = {**STACKS[stack], "activation": activation}
        network = random_network(cell, spec=network.spec, **options)
        assert_equals_oracle(network, path)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_features_may_be_of_different_size(cell: Cell, stack: str, path: Path) -> None:
    network = stacked_network(cell, stack, normalize=UNITS_OF_MEASURE)
    assert_equals_oracle(network, path, FAR_FROM_ZERO)


def assert_equals_oracle(network: Network, path: Path, limit: float = ROUNDING) -> None:
    pytorch.write(network, path)
    runtime = TorchRuntime(path, network.spec)
    for batch in (1, 7, 64):
        x = raw_input(batch, network.spec)
        exact = oracle.probabilities(network, x)
        np.testing.assert_allclose(runtime.predict(x), exact, rtol=0, atol=limit)


def test_input_that_cannot_be_written_to_is_taken_without_a_warning(path: Path) -> None:
    pytorch.write(random_network("gru"), path)
    x = raw_input(2)
    x.flags.writeable = False
    assert TorchRuntime(path, SPEC).predict(x).shape == (2, SPEC.classes)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_that_which_was_asked_for(threads: int, path: Path) -> None:
    pytorch.write(random_network("gru"), path)
    before = torch.get_num_threads()
    try:
        TorchRuntime(path, SPEC, threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# --- what is in it ---
@pytest.mark.parametrize(
    "stack", [{}, {"layers": 2}, {"layers": 3, "bidirectional": True}], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_tensors_have_the_names_and_shapes_of_pytorch(
    cell: Cell, stack: dict[str, Any], path: Path
) -> None:
    """They load, every one of them, into the layer that a PyTorch user knows."""
    network = random_network(cell, **stack)
    about = pytorch.write(network, path)
    layer = getattr(torch.nn, {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[cell])
    options = {"bidirectional": network.bidirectional, "batch_first": True}
    module = torch.nn.ModuleDict(
        {
            "recurrent": layer(SPEC.features, UNITS, len(network.layers), **options),
            "dense": torch.nn.Linear(network.layers[-1].width, SPEC.classes),
        }
    )
    from safetensors.torch import load_file

    module.load_state_dict(load_file(path), strict=True)
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    assert about["tensors"] == shapes
    assert about["layer"] == layer.__name__
    # The scale of raw input is inside.
    kernel = module["recurrent"].weight_ih_l0.detach().numpy()
    assert np.abs(kernel).max() == pytest.approx(
        SPEC.normalization.scale[0] * np.abs(network.layers[0].forward.kernel).max()
    )


def test_the_file_says_what_it_is(path: Path) -> None:
    pytorch.write(random_network("lstm", "relu"), path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
    assert metadata["format"] == "pt"
    assert (metadata["cell"], metadata["activation"]) == ("lstm", "relu")
    assert metadata["recurrent_activation"] == "sigmoid"
    assert json.loads(metadata["labels"]) == list(SPEC.labels)
    assert json.loads(metadata["spec"]) == json.loads(SPEC.to_json())
    (signature,) = json.loads(metadata["signatures"])
    assert signature == classify(SPEC).to_dict()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """The library itself writes metadata in an order that changes from call to call."""
    network, files = random_network("gru"), set()
    for number in range(10):
        pytorch.write(network, tmp_path / str(number))
        files.add((tmp_path / str(number)).read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_module_in_the_readme_runs_as_it_stands(
    cell: Cell, activation: str, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert_the_readme_runs(random_network(cell, activation), path, monkeypatch, capsys)


@pytest.mark.parametrize("activation", ["tanh", "elu"])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_so_it_does_for_a_stack(
    cell: Cell, stack: str, activation: str, path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    network = random_network(cell, **{**STACKS[stack], "activation": activation})
    assert_the_readme_runs(network, path, monkeypatch, capsys)


@pytest.mark.parametrize("activation", ["tanh", "elu"])
@pytest.mark.parametrize("stack", [{}, {"layers": 2, "bidirectional": True}], ids=["one", "stack"])
@pytest.mark.parametrize("cell", CELLS)
def test_so_it_does_where_lengths_vary(
    cell: Cell, stack: dict[str, Any], activation: str, path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    network = random_network(cell, activation, VARYING, **stack)
    assert_the_readme_runs(network, path, monkeypatch, capsys)


def assert_the_readme_runs(
    network: Network, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    formats, spec = {"torch": pytorch.write(network, path)}, network.spec
    manifest = {"spec": spec.to_dict(), "model": describe(network), "formats": formats}
    lines = pytorch_readme.code(manifest)
    assert max(map(len, lines)) <= 100
    x = raw_input(5)
    lengths = np.array([5, 1, 7, 3, 2], np.int32) if spec.varies else None
    exact = oracle.probabilities(network, x, lengths)
    example.write(network, x, ROUNDING, path.parent, lengths)
    monkeypatch.chdir(path.parent)
    found: dict[str, Any] = {}
    exec("\n".join(lines), found)  # noqa: S102 - what a user would do with it
    given = [torch.from_numpy(x)]
    if lengths is not None:  # any padding
        x = with_padding(x, lengths, np.nan)
        given = [torch.from_numpy(x), torch.from_numpy(lengths)]
    with torch.inference_mode():
        answer = found["model"](*given).numpy()
    np.testing.assert_allclose(answer, exact, rtol=0, atol=ROUNDING)
    label, _, probability = capsys.readouterr().out.rstrip("\n").rpartition(" ")
    assert label == SPEC.labels[int(exact[0].argmax())]
    assert float(probability) == pytest.approx(exact[0].max(), abs=ROUNDING)


# --- in a bundle ---
def test_a_bundle_with_pytorch_alone(torch_bundle: Bundle, small: SequenceData) -> None:
    assert torch_bundle.formats == ["torch"]
    torch_bundle.check()
    others = {"README.md", "data_profile.npz", "example.json", "request.json"}
    models = {"model.keras", "model.safetensors"}
    assert set(torch_bundle.manifest["files"]) - others == models
    assert torch_bundle.manifest["versions"]["safetensors"] == safetensors.__version__
    report = verify_bundle(torch_bundle)
    assert report.failures() == []
    # No second row for the same library.
    assert {row.format for row in report.rows} == {"keras", "torch"}
    right = open_runtime(torch_bundle, "torch").predict(small.test.x).argmax(axis=1) == small.test.y
    assert report.rows[12].accuracy == right.mean()


RUN_ALONE = """
import sys
import numpy
from export.bundle import Bundle
from export.runtimes import open_runtime
bundle = Bundle.open(sys.argv[1])
shape = (2, bundle.spec.longest, bundle.spec.features)
assert open_runtime(bundle, "torch").predict(numpy.zeros(shape)).shape == (2, bundle.spec.classes)
print(*sorted({"tensorflow", "keras", "onnxruntime"} & set(sys.modules)))
"""


def test_it_runs_without_tensorflow(torch_bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, str(torch_bundle.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_it_answers_predict(
    torch_bundle: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "x.npy", small.test.x[0])
    assert predict([str(torch_bundle.path), str(tmp_path / "x.npy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = open_runtime(torch_bundle, "torch").predict(small.test.x[:1])[0]
    assert found["label"] == torch_bundle.spec.labels[int(expected.argmax())]
    assert found["probability"] == pytest.approx(float(expected.max()), abs=1e-6)


def test_one_byte_flipped_is_refused(torch_bundle: Bundle, small_run: Run, tmp_path: Path) -> None:
    bundle = export_run(small_run, tmp_path / "out", formats=("torch",))
    file = bundle.path / "model.safetensors"
    assert file.read_bytes() == (torch_bundle.path / file.name).read_bytes()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged: .*model\.safetensors is not the file that was"):
        open_runtime(bundle, "torch")


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_without_it_the_command_says_what_to_install(
    missing: str, small_run: Run, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal(main, ["nowhere"], capsys)  # tyro asks for torch when it first reads a command line
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "export.formats.pytorch")
    monkeypatch.delitem(sys.modules, "rnn_tf.training.torch.module")
    monkeypatch.delattr("export.formats.pytorch")
    argv = [small_run.path, "--formats", "onnx", "torch", "--out", tmp_path / "out"]
    line = refusal(main, argv, capsys)
    assert line.endswith('pip install "rnn-tf[torch]"\n')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_a_bundle_without_it_names_what_is_missing(
    missing: str, torch_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "export.formats.pytorch")
    monkeypatch.delattr("export.formats.pytorch")
    message = rf"^running model\.safetensors needs {missing}\. Install it: pip install {missing}$"
    with pytest.raises(InputError, match=message):
        open_runtime(torch_bundle, "torch")
