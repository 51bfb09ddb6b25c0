"""The rule of early answers travels from the run into its bundle, and is in its README."""

from __future__ import annotations

import numpy as np
import pytest
from commands import Capture

from export.bundle import Bundle
from export.publish import export_run
from export.stream import main as stream_main
from export.stream import open_stream
from rnn_tf import Run, load
from rnn_tf.errors import InputError
from rnn_tf.evaluate import main


def test_a_bundle_has_the_rule_of_its_run(run_copy: Run, capsys: Capture) -> None:
    assert main([str(run_copy.path), "--early", "--promise", "0.6"]) == 0
    bundle = export_run(run_copy, formats=["onnx"])
    rule = bundle.early
    assert rule is not None
    assert rule.promise == 0.6
    early = bundle.manifest["early"]
    assert (early["confidence"], early["promise"]) == (rule.confidence, rule.promise)
    text = " ".join((bundle.path / "README.md").read_text().split())
    assert "trained for one policy: zeros where a sequence begins, which has 12 steps" in text
    assert f"final as soon as a probability reaches {rule.confidence:.6g}" in text
    accuracy = f"{early['test']['accuracy']:.2%}"
    assert f"promised accuracy of 60.00%, on the test split it was {accuracy}, after" in text
    # A stream over the bundle says so, and is as right as the manifest says.
    test = load(run_copy.config).test
    stream = open_stream(bundle, sessions=len(test.y))
    last = stream.push(test.x.astype(np.float32))[:, -1].argmax(axis=1)
    labels = bundle.spec.labels
    said = [
        labels[end] if sure is None else sure for sure, end in zip(stream.final, last, strict=True)
    ]
    right = [label == labels[y] for label, y in zip(said, test.y, strict=True)]
    assert np.mean(right) == pytest.approx(early["test"]["accuracy"])
    np.savetxt(run_copy.path / "first.csv", test.x[0], delimiter=",")
    capsys.readouterr()
    assert stream_main([str(bundle.path), str(run_copy.path / "first.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ("final: " in lines[-1]) == (stream.final[0] is not None)
    # Edited, it is refused like the rest of the manifest.
    manifest = bundle.path / "manifest.json"
    edited = manifest.read_text().replace('"promise": 0.6', '"promise": 0.9')
    assert edited != manifest.read_text()
    manifest.write_text(edited)
    with pytest.raises(InputError, match="the checksum that it was written with"):
        Bundle.open(bundle.path)


def test_a_damaged_rule_is_refused_before_anything_is_published(run_copy: Run) -> None:
    run_copy.early_file.write_text('{"confidence": 0.5}')
    with pytest.raises(InputError, match=r"cannot read .*early\.json; got bad early answers"):
        export_run(run_copy, formats=["onnx"])
    assert not (run_copy.path / "bundle").exists()


def test_without_a_rule_there_is_none(small_bundle: Bundle) -> None:
    assert small_bundle.early is None
    text = (small_bundle.path / "README.md").read_text()
    assert "trained for one policy" in text
    assert "is final as soon as" not in text
