"""The README of a bundle: how to call each format, with the real names and shapes of the model."""

from __future__ import annotations

from typing import Any

from export.bundle import ARTEFACTS, SERVING_VERSION
from export.check.compare import Report
from export.check.limits import MOST_DIFFERENCE
from export.formats import pytorch_readme
from export.network import INPUT, OUTPUT


def text(manifest: dict[str, Any], report: Report) -> str:
    """The whole README, Markdown."""
    formats = list(manifest["formats"])
    parts = [_head(manifest), _files(formats), _contract(manifest)]
    if "onnx" in formats:
        parts += [_onnx_python(manifest), _onnx_cpp(manifest), _onnx_javascript(manifest)]
    if "tflite" in formats:
        parts.append(_tflite(manifest, formats))
    if "saved_model" in formats:
        parts += [_saved_model(manifest), _serving(manifest)]
    if "torch" in formats:
        parts.append(_torch(manifest))
    parts += [_verification(report), _metrics(manifest)]
    return "\n".join(parts)


def _head(manifest: dict[str, Any]) -> str:
    model, spec = manifest["model"], manifest["spec"]
    return (
        f"# {model['cell']}({model['units']}) on {manifest['dataset']}\n\n"
        f"A recurrent classifier of {model['parameters']:,} parameters: it reads "
        f"{spec['timesteps']} steps of {spec['features']} numbers and says which of "
        f"{spec['classes']} classes they are. Every format below computes the "
        "same function; quantized ones do to the rounding of their weights.\n"
    )


def _files(formats: list[str]) -> str:
    about = {
        "saved_model": "TensorFlow SavedModel, in the layout of TensorFlow Serving",
        "tflite": "TFLite, float32, builtin operators only",
        "tflite_int8": "TFLite with int8 weights",
        "tflite_float16": "TFLite with float16 weights",
        "onnx": "ONNX, standard operators only",
        "torch": "the weights for PyTorch, in safetensors; the module is below",
    }
    rows = [f"| `{ARTEFACTS[name]}` | {about[name]} |" for name in formats]
    return "\n".join(
        [
            "| file | |",
            "|---|---|",
            *rows,
            "| `model.keras` | the trained model in float32, which the others were held against; "
            "it takes scaled input |",
            "| `manifest.json` | names, shapes, labels, versions, and the SHA-256 of every file |",
            "| `verification.json` | what each format was asked, and how it answered |",
            "",
        ]
    )


def _contract(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    labels = ", ".join(spec["labels"])
    return (
        "## Input and output\n\n"
        f"- input `{INPUT}`: float32 `(batch, {spec['timesteps']}, "
        f"{spec['features']})`, any batch. Raw values as the data has them: they are multiplied by "
        f"{spec['scale']:.6g} inside.\n"
        f"- output `{OUTPUT}`: float32 `(batch, {spec['classes']})`, the probability "
        f"of each class: {labels}.\n\n"
        "There is no state between calls.\n"
    )


def _zeros(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    return f"np.zeros((1, {spec['timesteps']}, {spec['features']}), np.float32)"


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def _onnx_python(manifest: dict[str, Any]) -> str:
    return "## ONNX from Python\n\n`pip install onnxruntime numpy`\n\n" + _code(
        "python",
        "import json",
        "",
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{ARTEFACTS["onnx"]}")',
        f"x = {_zeros(manifest)}",
        f'probabilities = session.run(["{OUTPUT}"], {{"{INPUT}": x}})[0]',
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
        "print(labels[probabilities[0].argmax()], probabilities[0].max())",
    )


def _onnx_cpp(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    return "## ONNX from C++\n\nWith the C++ API of ONNX Runtime:\n\n" + _code(
        "cpp",
        "#include <onnxruntime_cxx_api.h>",
        "#include <cstdio>",
        "#include <vector>",
        "",
        "int main() {",
        '  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "classifier");',
        "  Ort::SessionOptions options;",
        "  options.SetIntraOpNumThreads(1);",
        f'  Ort::Session session(env, ORT_TSTR("{ARTEFACTS["onnx"]}"), options);',
        "",
        f"  std::vector<int64_t> shape = {{1, {spec['timesteps']}, {spec['features']}}};",
        f"  std::vector<float> x(1 * {spec['timesteps']} * {spec['features']});  // raw values",
        "  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);",
        "  auto input = Ort::Value::CreateTensor<float>(",
        "      memory, x.data(), x.size(), shape.data(), shape.size());",
        f'  const char* inputs[] = {{"{INPUT}"}};',
        f'  const char* outputs[] = {{"{OUTPUT}"}};',
        "  auto answer = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);",
        "  const float* probabilities = answer[0].GetTensorData<float>();",
        f"  for (int i = 0; i < {spec['classes']}; ++i) "
        'std::printf("%d %.4f\\n", i, probabilities[i]);',
        "}",
    )


def _onnx_javascript(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    shape = f"[1, {spec['timesteps']}, {spec['features']}]"
    return (
        "## ONNX from JavaScript\n\n`npm install onnxruntime-web` (or `onnxruntime-node`)\n\n"
        + _code(
            "javascript",
            'import * as ort from "onnxruntime-web";',
            "",
            f'const session = await ort.InferenceSession.create("{ARTEFACTS["onnx"]}");',
            f"const x = new Float32Array({spec['timesteps']} * {spec['features']}); // raw values",
            f"const {{ {OUTPUT} }} = await session.run({{",
            f'  {INPUT}: new ort.Tensor("float32", x, {shape}),',
            "});",
            f"console.log({OUTPUT}.data); // {spec['classes']} numbers",
        )
    )


def _tflite(manifest: dict[str, Any], formats: list[str]) -> str:
    small = [ARTEFACTS[name] for name in formats if name.startswith("tflite_")]
    also = f" `{small[0]}` is called in the same way." if small else ""
    return (
        f"## TFLite from Python\n\n`pip install ai-edge-litert numpy`.{also} On a phone, the same "
        "signature is called from Kotlin, Swift or C++.\n\n"
        + _code(
            "python",
            "import numpy as np",
            "from ai_edge_litert.interpreter import Interpreter",
            "",
            f'interpreter = Interpreter("{ARTEFACTS["tflite"]}")',
            'classify = interpreter.get_signature_runner("serving_default")',
            f"x = {_zeros(manifest)}  # any batch",
            f'probabilities = classify({INPUT}=x)["{OUTPUT}"]',
            "print(probabilities[0].argmax(), probabilities[0].max())",
        )
    )


def _saved_model(manifest: dict[str, Any]) -> str:
    return "## SavedModel from Python\n\n`pip install tensorflow`\n\n" + _code(
        "python",
        "import numpy as np",
        "import tensorflow as tf",
        "",
        f'model = tf.saved_model.load("{ARTEFACTS["saved_model"]}/{SERVING_VERSION}")',
        f"x = {_zeros(manifest)}",
        f'answer = model.signatures["serving_default"]({INPUT}=tf.constant(x))',
        f'probabilities = answer["{OUTPUT}"].numpy()',
        'labels = model.signatures["metadata"]()["labels"].numpy()',
        "print(labels[probabilities[0].argmax()].decode(), probabilities[0].max())",
    )


def _serving(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    return (
        "## TensorFlow Serving\n\nIt warms up with the requests in "
        "`assets.extra/tf_serving_warmup_requests`.\n\n"
        + _code(
            "sh",
            "docker run -p 8501:8501 -e MODEL_NAME=classifier \\",
            f'  -v "$PWD/{ARTEFACTS["saved_model"]}:/models/classifier" tensorflow/serving',
            "# instances: a list of sequences, each "
            f"{spec['timesteps']} lists of {spec['features']} numbers",
            "curl -d @request.json localhost:8501/v1/models/classifier:predict",
        )
    )


def _torch(manifest: dict[str, Any]) -> str:
    return (
        "## PyTorch\n\n`pip install torch safetensors`. The scaling of raw values is in "
        "`recurrent.weight_ih_l0`.\n\n" + _code("python", *pytorch_readme.code(manifest))
    )


def _verification(report: Report) -> str:
    names = list(dict.fromkeys(row.format for row in report.rows))
    rows = []
    for name in names:
        test, *rest = [row for row in report.rows if row.format == name]
        worst = max(rest, key=lambda row: row.max_difference)
        rows.append(
            f"| {name} | {test.accuracy:.2%} | {test.agreement:.2%} | {test.max_difference:.1e} "
            f"| {test.mean_difference:.1e} | {worst.max_difference:.1e} ({worst.family}) |"
        )
    test = report.rows[0]
    others = dict.fromkeys(row.family for row in report.rows if row.family != test.family)
    return "\n".join(
        [
            "## Verification",
            "",
            f"Each format answered the {test.examples:,} examples of the test split and was held "
            "against the formulas in float64: its accuracy, the share of equal answers, the "
            "largest and the mean difference of a probability. Then it was asked: "
            f"{', '.join(others)}. What is not quantized must differ by at most "
            f"{MOST_DIFFERENCE:g} everywhere. `verification.json` has all figures.",
            "",
            "| format | accuracy | equal answers | largest difference | mean "
            "| largest on other input |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _metrics(manifest: dict[str, Any]) -> str:
    splits = ("train", "valid", "test")
    # A trial of a search has no test scores: it has not seen the test split.
    found = {name: manifest["metrics"][name] for name in splits if name in manifest["metrics"]}
    rows = [
        f"| {name} | {of['accuracy']:.2%} | {of['loss']:z.4f} | {of['examples']:,} |"
        for name, of in found.items()
    ]
    return "\n".join(
        [
            "## The training run",
            "",
            "| split | accuracy | loss | examples |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
