"""SavedModel, laid out for TensorFlow Serving: `saved_model/<version>/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import SERVING_VERSION
from export.formats.tf_function import inference_function
from export.network import INPUT, Twin

# TensorFlow Serving runs these once when it loads the model, so that the first caller need not
# wait for what is set up on first use.
WARMUP_BATCHES = (1,)
SERVING_NAME = "rnn_tf"


def write(twin: Twin, folder: Path) -> dict[str, Any]:
    """Write the twin as a SavedModel into `folder`; give what the manifest says about it.

    `serving_default` maps float32 `sequence` `(batch, timesteps, features)` to float32
    `probabilities` `(batch, classes)`; `metadata` takes nothing and gives the `labels`
    `(classes,)` and the `spec` as JSON, both strings. There is no variable in it.
    """
    import tensorflow as tf

    function = inference_function(twin)
    labels = tf.constant(list(twin.spec.labels))
    spec = tf.constant(json.dumps(json.loads(twin.spec.to_json()), ensure_ascii=False))

    @tf.function(input_signature=[])  # type: ignore[untyped-decorator]
    def metadata() -> dict[str, tf.Tensor]:
        return {"labels": tf.identity(labels), "spec": tf.identity(spec)}

    module = tf.Module()
    module.serving_default, module.metadata = function, metadata
    version = folder / SERVING_VERSION
    tf.saved_model.save(
        module,
        str(version),
        signatures={
            "serving_default": function.get_concrete_function(),
            "metadata": metadata.get_concrete_function(),
        },
    )
    _write_warmup(twin, version / "assets.extra" / "tf_serving_warmup_requests")
    return {"version": SERVING_VERSION, "signatures": ["serving_default", "metadata"]}


def _write_warmup(twin: Twin, file: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as records:
        for batch in WARMUP_BATCHES:
            x = np.zeros((batch, twin.spec.timesteps, twin.spec.features), np.float32)
            request = PredictRequest()
            request.model_spec.name = SERVING_NAME
            request.model_spec.signature_name = "serving_default"
            request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(x))
            log = PredictionLog(predict_log=PredictLog(request=request))
            records.write(log.SerializeToString())
