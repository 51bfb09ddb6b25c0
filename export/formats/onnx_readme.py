"""The part of a bundle's README that is about ONNX."""

from __future__ import annotations

from typing import Any

from export.formats.registry import file_of
from export.markdown import code, zeros
from export.network import INPUT, OUTPUT


def sections(manifest: dict[str, Any]) -> list[str]:
    """How to call it from Python, C++ and JavaScript."""
    return [_python(manifest), _cpp(manifest), _javascript(manifest)]


def _python(manifest: dict[str, Any]) -> str:
    return "## ONNX from Python\n\n`pip install onnxruntime numpy`\n\n" + code(
        "python",
        "import json",
        "",
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{file_of("onnx")}")',
        f"x = {zeros(manifest)}",
        f'probabilities = session.run(["{OUTPUT}"], {{"{INPUT}": x}})[0]',
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
        "print(labels[probabilities[0].argmax()], probabilities[0].max())",
    )


def _cpp(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    return "## ONNX from C++\n\nWith the C++ API of ONNX Runtime:\n\n" + code(
        "cpp",
        "#include <onnxruntime_cxx_api.h>",
        "#include <cstdio>",
        "#include <vector>",
        "",
        "int main() {",
        '  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "classifier");',
        "  Ort::SessionOptions options;",
        "  options.SetIntraOpNumThreads(1);",
        f'  Ort::Session session(env, ORT_TSTR("{file_of("onnx")}"), options);',
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
        f"  for (int i = 0; i < {len(spec['labels'])}; ++i) "
        'std::printf("%d %.4f\\n", i, probabilities[i]);',
        "}",
    )


def _javascript(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    shape = f"[1, {spec['timesteps']}, {spec['features']}]"
    return (
        "## ONNX from JavaScript\n\n`npm install onnxruntime-web` (or `onnxruntime-node`)\n\n"
        + code(
            "javascript",
            'import * as ort from "onnxruntime-web";',
            "",
            f'const session = await ort.InferenceSession.create("{file_of("onnx")}");',
            f"const x = new Float32Array({spec['timesteps']} * {spec['features']}); // raw values",
            f"const {{ {OUTPUT} }} = await session.run({{",
            f'  {INPUT}: new ort.Tensor("float32", x, {shape}),',
            "});",
            f"console.log({OUTPUT}.data); // {len(spec['labels'])} numbers",
        )
    )
