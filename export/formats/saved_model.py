"""SavedModel, laid out for TensorFlow Serving: `saved_model/<version>/`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.example import EXAMPLE, REQUEST
from export.formats.format import AGAIN, CheckedStep, as_inputs, file_metadata
from export.formats.registry import file_of
from export.formats.tf_function import inference_function, step_function
from export.markdown import (
    check_last,
    check_probabilities,
    code,
    each_frame,
    example_inputs,
    given,
    last_answer,
    load_example,
    next_states,
    varies,
    zero_states,
)
from export.network import FRAMES, INPUT, LENGTHS, NEXT_STATE, OUTPUT, STATE, Network
from export.signatures import CLASSIFY, STEP, state_units
from export.start import start_tensorflow
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

# TensorFlow Serving takes the folder as a model and its subfolders as versions of it.
SERVING_VERSION = "1"

# TensorFlow Serving runs these once when it loads the model, so that the first caller need not
# wait for what is set up on first use.
WARMUP_BATCHES = (1,)
SERVING_NAME = "rnn_tf"

# Operators that read or write files, or call Python; and those of the saver, which TensorFlow adds
# to every SavedModel for its own folder of variables.
FOREIGN = re.compile("File|Reader|Dataset|Table|PyFunc|Restore|Save")
SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}


def write(network: Network, folder: Path) -> dict[str, Any]:
    """Write the network as a SavedModel into `folder`; give what the manifest says about it.

    `serving_default` maps float32 `sequence` `(batch, timesteps, features)`, and int32 `lengths`
    `(batch,)` where they vary, to float32 `probabilities` `(batch, classes)`; `step` reads the next
    frames of sequences, where the network reads forward; `metadata` takes nothing and gives the
    `labels` `(classes,)`, and the rest of what a file says of itself as JSON, all strings. There is
    no variable in it.
    """
    import tensorflow as tf

    function = inference_function(network)
    written = file_metadata(network, (CLASSIFY, STEP))
    about = {name: tf.constant(text) for name, text in written.items()}
    about["labels"] = tf.constant(list(network.spec.labels))

    @tf.function(input_signature=[])  # type: ignore[untyped-decorator]
    def metadata() -> dict[str, tf.Tensor]:
        return {name: tf.identity(value) for name, value in about.items()}

    module = tf.Module()
    module.serving_default, module.metadata = function, metadata
    functions = {"serving_default": function, "metadata": metadata}
    if not network.bidirectional:
        module.step = functions[STEP] = step_function(network, one=False)
    version = folder / SERVING_VERSION
    tf.saved_model.save(
        module,
        str(version),
        signatures={name: each.get_concrete_function() for name, each in functions.items()},
    )
    _write_warmup(network, version / "assets.extra" / "tf_serving_warmup_requests")
    return {"version": SERVING_VERSION, "signatures": list(functions)}


def _write_warmup(network: Network, file: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as records:
        for batch in WARMUP_BATCHES:
            x = np.zeros((batch, network.spec.longest, network.spec.features), np.float32)
            request = PredictRequest()
            request.model_spec.name = SERVING_NAME
            request.model_spec.signature_name = "serving_default"
            request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(x))
            if network.spec.varies:
                lengths = np.full(batch, network.spec.longest, np.int32)
                request.inputs[LENGTHS].CopyFrom(tf.make_tensor_proto(lengths))
            log = PredictionLog(predict_log=PredictLog(request=request))
            records.write(log.SerializeToString())


def _refuse_other_files(file: Path) -> None:
    """Raise `InputError` for a model that reads or writes files, or calls Python: ours never do."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    operators = {
        node.op
        for meta in SavedModel.FromString(file.read_bytes()).meta_graphs
        for nodes in (meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function))
        for node in nodes
    }
    if foreign := sorted(filter(FOREIGN.search, operators - SAVER)):
        raise InputError(
            f"cannot run {file}: it uses more than its input",
            expected="arithmetic only",
            got=", ".join(foreign)[:200],
            fix=AGAIN,
        )


class _Loaded:
    """A SavedModel in TensorFlow, one of whose signatures is called."""

    def __init__(self, path: Path, signature: str, threads: int | None) -> None:
        tf = start_tensorflow(threads)
        _refuse_other_files(path / SERVING_VERSION / "saved_model.pb")
        # The signature lives only as long as what was loaded.
        self.loaded = tf.saved_model.load(str(path / SERVING_VERSION))
        self.call = self.loaded.signatures[signature]
        self.tensor = tf.constant

    def metadata(self) -> Mapping[str, str]:
        found = {
            name: value.numpy() for name, value in self.loaded.signatures["metadata"]().items()
        }
        labels = json.dumps([label.decode() for label in found.pop("labels")], ensure_ascii=False)
        return {"labels": labels, **{name: text.decode() for name, text in found.items()}}

    def ask(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answer = self.call(**{name: self.tensor(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in answer.items()}


class SavedModelRuntime(_Loaded):
    """A SavedModel in TensorFlow, through its `serving_default` signature."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, "serving_default", threads)
        self.spec = spec

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        return self.ask(as_inputs(x, lengths, self.spec))[OUTPUT]


class SavedModelStep(_Loaded, CheckedStep):
    """A SavedModel in TensorFlow, through its `step` signature."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        super().__init__(path, STEP, threads)
        self.spec, self.units = spec, state_units(self.metadata().get("signatures", ""))

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        before = {STATE.format(i): state for i, state in enumerate(states)}
        answer = self.ask({FRAMES: frames, **before})
        return answer[OUTPUT], [answer[NEXT_STATE.format(i)] for i in range(len(self.units))]


def readme(manifest: dict[str, Any]) -> list[str]:
    """How to call it from Python, and how to serve it."""
    return [_python(manifest), _serving(manifest)]


def _python(manifest: dict[str, Any]) -> str:
    return "## SavedModel from Python\n\n`pip install tensorflow`\n\n" + code(
        "python",
        "import json",
        "",
        "import numpy as np",
        "import tensorflow as tf",
        "",
        *load_example(),
        *example_inputs(manifest),
        f'model = tf.saved_model.load("{file_of("saved_model")}/{SERVING_VERSION}")',
        f'answer = model.signatures["serving_default"]({_given(manifest)})',
        f'probabilities = answer["{OUTPUT}"].numpy()',
        *check_probabilities(manifest),
        'labels = model.signatures["metadata"]()["labels"].numpy()',
        f"last = {last_answer(manifest)}",
        "print(labels[last.argmax()].decode(), last.max())",
        *(_step(manifest) if next_states(manifest) else []),
    )


def _step(manifest: dict[str, Any]) -> list[str]:
    return [
        "",
        f'step = model.signatures["{STEP}"]',
        *zero_states(manifest, "tf.zeros((1, {}))"),
        each_frame(manifest),
        f"    answer = step({FRAMES}=tf.constant(x[:, t : t + 1]), **states)",
        '    states = {name: answer[f"next_{name}"] for name in states}',
        *check_last(manifest, f'answer["{OUTPUT}"].numpy()[0, -1]'),
    ]


def _given(manifest: dict[str, Any]) -> str:
    return given(manifest, "{name}=tf.constant({value})")


def _serving(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    sequence = f"{spec['longest']} lists of {spec['features']} numbers"
    instances = f"# instances: a list of sequences, each {sequence}"
    if varies(manifest):
        instances = f'# instances: a list of {{"{INPUT}": {sequence}, "{LENGTHS}": a number}}'
    return (
        "## TensorFlow Serving\n\nIt warms up with the requests in "
        "`assets.extra/tf_serving_warmup_requests`.\n\n"
        + code(
            "sh",
            "docker run -p 8501:8501 -e MODEL_NAME=classifier \\",
            f'  -v "$PWD/{file_of("saved_model")}:/models/classifier" tensorflow/serving',
            instances,
            f"curl -d @{REQUEST} localhost:8501/v1/models/classifier:predict",
        )
        + f"\nIt answers with `predictions`: the `{OUTPUT}` of `{EXAMPLE}`.\n"
    )
