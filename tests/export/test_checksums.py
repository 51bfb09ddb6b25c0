"""No byte of a bundle changes unnoticed, and its files agree about what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Capture, refusal
from networks import SPEC, random_network
from onnx import numpy_helper

from export import predict, verify
from export.bundle import Bundle, sha256
from export.formats import onnx as onnx_format
from export.formats import onnx_graph, tflite_file
from export.runtimes import open_runtime
from export.sealed import is_sealed, sealed
from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.errors import InputError

POSITIONS = 60
# A bit, and a whole byte: to 0, to a blank, to a digit.
CHANGES: list[Callable[[int], int]] = [
    lambda byte: byte ^ 1,
    lambda byte: byte ^ 32,
    lambda byte: 0,
    lambda byte: 0x20,
    lambda byte: 0x31,
]


def all_files(bundle: Bundle) -> list[Path]:
    return sorted(path for path in bundle.path.rglob("*") if path.is_file())


def test_sixty_of_sixty_altered_bytes_of_each_file_are_caught(copy: Bundle) -> None:
    Bundle.open(copy.path).check()
    random = np.random.default_rng(0)
    for file in all_files(copy):
        data = file.read_bytes()
        places = random.choice(len(data), min(POSITIONS, len(data)), replace=False)
        for number, place in enumerate(map(int, places)):
            other = CHANGES[number % len(CHANGES)](data[place])
            other = data[place] ^ 0x80 if other == data[place] else other
            file.write_bytes(data[:place] + bytes([other]) + data[place + 1 :])
            with pytest.raises(InputError):
                Bundle.open(copy.path).check()
        file.write_bytes(data)
    Bundle.open(copy.path).check()


def test_every_byte_of_a_manifest_counts() -> None:
    data = sealed({"layout": 2, "labels": ["läuft", "7"], "inner": {"checksum": "a"}}).encode()
    assert is_sealed(data)
    for place, byte in enumerate(data):
        for bit in range(8):
            changed = data[:place] + bytes([byte ^ (1 << bit)]) + data[place + 1 :]
            assert not is_sealed(changed), (place, bit)
    for cut in range(len(data)):
        assert not is_sealed(data[:cut])
        assert not is_sealed(data[:cut] + b"\n" + data[cut:])


def test_a_sealed_text_is_json_and_can_be_sealed_again() -> None:
    values = {"a": [1.5, None], "b": "ü\n"}
    text = sealed(values)
    assert {key: json.loads(text)[key] for key in values} == values
    assert sealed(json.loads(text)) == text


# --- files that are not of one bundle ---
def reseal(bundle: Bundle) -> Bundle:
    """Write all checksums anew, as somebody would who wants the change to pass."""
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["files"] = {name: sha256(bundle.path / name) for name in manifest["files"]}
    (bundle.path / "manifest.json").write_text(sealed(manifest))
    again = Bundle.open(bundle.path)
    again.write_verification(bundle.verification_file.read_text())
    return again


def relabelled(bundle: Bundle, labels: list[str]) -> Bundle:
    file = bundle.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["spec"]["labels"] = labels
    file.write_text(sealed(manifest))
    return reseal(bundle)


@pytest.mark.parametrize("name", ["onnx", "tflite", "tflite_int8", "saved_model"])
def test_labels_in_the_manifest_are_those_in_each_file(name: str, copy: Bundle) -> None:
    other = relabelled(copy, ["rises", "flat", "falls"])
    other.check()
    with pytest.raises(InputError, match=r"the bundle is damaged: .*manifest.json and .* differ"):
        open_runtime(other, name)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_predict_does_not_say_a_label_that_was_changed(
    format: str, copy: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "x.npy", small.test.x[0])
    relabelled(copy, ["rises", "flat", "falls"])
    arguments: list[object] = [copy.path, tmp_path / "x.npy", "--format", format]
    line = refusal(predict.main, arguments, capsys)
    assert 'expected labels ["rises", "flat", "falls"], got ["falls", "flat", "rises"]' in line


def test_verify_refuses_another_normalization_too(copy: Bundle, capsys: Capture) -> None:
    file = copy.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["spec"]["channels"] = 1
    file.write_text(sealed(manifest))
    reseal(copy)
    assert verify.main([str(copy.path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "differ; expected spec " in err.splitlines()[-1]


def test_two_equal_labels_are_refused(copy: Bundle, capsys: Capture) -> None:
    file = copy.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["spec"]["labels"] = ["falls", "falls", "rises"]
    file.write_text(sealed(manifest))
    line = refusal(verify.main, [copy.path], capsys)
    assert "two classes have the same label; got 'falls'" in line
    with pytest.raises(InputError, match="two classes have the same label; got 'a'"):
        SequenceSpec(timesteps=1, features=1, labels=("a", "b", "a"))


def test_a_report_of_another_bundle_is_refused(copy: Bundle) -> None:
    report = json.loads(copy.verification_file.read_text())
    copy.verification_file.write_text(sealed({**report, "manifest": "0" * 64}))
    with pytest.raises(InputError, match=r"verification.json is about another bundle"):
        copy.check()


# --- files that nobody has verified ---
def test_a_file_that_was_added_is_refused(copy: Bundle) -> None:
    (copy.path / "weights.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"files that were not verified: weights.bin.*Remove them"):
        copy.check()
    (copy.path / "weights.bin").unlink()
    copy.check()


def test_what_an_interrupted_verification_leaves_is_no_obstacle(copy: Bundle) -> None:
    (copy.path / ".verification.123.json").write_text("{")
    copy.check()


def test_a_verification_leaves_the_bundle_whole(
    copy: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads(copy.verification_file.read_text())
    assert verify.main([str(copy.path)]) == 0
    capsys.readouterr()
    copy.check()
    after = json.loads(copy.verification_file.read_text())
    assert after["manifest"] == before["manifest"] == copy.manifest["checksum"]


def with_external_data(model: Path, location: str) -> None:
    """Move the first large weight of a model into another file."""
    loaded = onnx.load(model)
    attributes = [each for node in loaded.graph.node for each in node.attribute]
    graph = next((each.g for each in attributes if each.HasField("g")), loaded.graph)
    tensor = max(graph.initializer, key=lambda each: numpy_helper.to_array(each).size)
    data = numpy_helper.to_array(tensor).tobytes()
    onnx.external_data_helper.set_external_data(tensor, location, length=len(data))
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    model.write_bytes(loaded.SerializeToString())
    (model.parent / location).write_bytes(data)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
def test_an_onnx_file_that_keeps_weights_elsewhere_is_refused_in_one_line(
    location: str, copy: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    """Also where the checksums are right: nothing is read that is not in the file."""
    with_external_data(copy.path / "model.onnx", location)
    reseal(copy)
    np.save(tmp_path / "x.npy", small.test.x[0])
    line = refusal(predict.main, [copy.path, tmp_path / "x.npy"], capsys)
    assert f"cannot run {copy.path / 'model.onnx'}: it keeps weights in other files; got " in line


def test_a_label_that_looks_like_a_reference_is_none(tmp_path: Path) -> None:
    network = random_network("gru", spec=replace(SPEC, labels=("location", "b", "c", "d")))
    model = onnx_format.with_metadata(onnx_graph.build(network, 17), network)
    onnx.save(model, tmp_path / "model.onnx")
    onnx_format.OnnxRuntime(tmp_path / "model.onnx", network.spec)


# --- files that cannot be loaded ---
FILES = {
    "onnx": "model.onnx",
    "tflite": "model.tflite",
    "tflite_int8": "model.int8.tflite",
    "saved_model": "saved_model/1/saved_model.pb",
    "keras": "model.keras",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [0, 7, 0.5], ids=["empty", "begun", "half"])
def test_what_cannot_be_loaded_is_named_in_one_line(name: str, length: float, copy: Bundle) -> None:
    file = copy.path / FILES[name]
    data = file.read_bytes()
    file.write_bytes(data[: length if isinstance(length, int) else len(data) // 2])
    with pytest.raises(InputError) as caught:
        open_runtime(reseal(copy), name)
    message = str(caught.value)
    assert message.startswith(("cannot run ", "the bundle is damaged: "))
    assert str(copy.path) in message
    assert "\n" not in message
    assert len(message) < 800


def test_a_lambda_layer_is_refused_in_one_line(copy: Bundle, capsys: Capture) -> None:
    import keras

    model = keras.Sequential([keras.Input((12, 2)), keras.layers.Lambda(lambda x: x)])
    model.save(copy.path / "model.keras")
    reseal(copy)
    line = refusal(verify.main, [copy.path], capsys)
    assert line.startswith(f"error: cannot run {copy.path / 'model.keras'}; got ")
    assert "Lambda" in line


def test_custom_operators_are_refused_in_one_line(copy: Bundle) -> None:
    file = copy.path / "model.tflite"
    tree = tflite_file._read(file.read_bytes())
    tree.operatorCodes[0].builtinCode = 32  # CUSTOM
    tree.operatorCodes[0].deprecatedBuiltinCode = 32
    tree.operatorCodes[0].customCode = "Evil"
    file.write_bytes(tflite_file._write(tree))
    with pytest.raises(InputError, match=r"^cannot run .*model.tflite; got .*Evil"):
        open_runtime(reseal(copy), "tflite")


def test_a_saved_model_that_reads_files_is_refused_in_one_line(
    copy: Bundle, tmp_path: Path
) -> None:
    import tensorflow as tf

    secret = tmp_path / "secret"
    secret.write_text("mine")
    module = tf.Module()

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, 12, 2), tf.float32, "sequence")]
    )
    def classify(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.strings.length(tf.io.read_file(str(secret)))
        return {"probabilities": tf.zeros((tf.shape(sequence)[0], 3)) + tf.cast(length, tf.float32)}

    module.classify = classify
    version = copy.path / "saved_model" / "1"
    tf.saved_model.save(module, str(version), signatures=classify.get_concrete_function())
    with pytest.raises(InputError, match=r"it uses more than its input; .*got ReadFile"):
        open_runtime(reseal(copy), "saved_model")


def test_a_model_of_another_input_is_named_when_it_is_asked(
    copy: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    model = onnx.load(copy.path / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, copy.path / "model.onnx")
    reseal(copy)
    np.save(tmp_path / "x.npy", small.test.x[0])
    line = refusal(predict.main, [copy.path, tmp_path / "x.npy"], capsys)
    assert line.startswith(f"error: cannot run {copy.path / 'model.onnx'}; got ")


def test_a_bundle_of_the_first_layout_opens_and_its_labels_are_compared(tmp_path: Path) -> None:
    run = Path(__file__).parent.parent / "format_1" / "run"
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    old = Bundle.open(tmp_path / "bundle")
    old.check()
    file = old.path / "manifest.json"
    file.write_text(file.read_text().replace('"falls"', '"fell"'))
    with pytest.raises(InputError, match=r"manifest.json and model.onnx differ; expected labels"):
        open_runtime(Bundle.open(old.path), "onnx")
