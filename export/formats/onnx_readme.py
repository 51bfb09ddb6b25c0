"""The part of a bundle's README that is about ONNX."""

from __future__ import annotations

from typing import Any

from export.example import EXAMPLE
from export.formats.registry import file_of
from export.markdown import (
    check_probabilities,
    code,
    example_inputs,
    given,
    load_example,
    varies,
)
from export.network import INPUT, LENGTHS, OUTPUT


def sections(manifest: dict[str, Any]) -> list[str]:
    """How to call it from Python, C++ and JavaScript."""
    return [_python(manifest), _cpp(manifest), _javascript(manifest)]


def _python(manifest: dict[str, Any]) -> str:
    inputs = given(manifest, '"{name}": {value}')
    return "## ONNX from Python\n\n`pip install onnxruntime numpy`\n\n" + code(
        "python",
        "import json",
        "",
        "import numpy as np",
        "import onnxruntime",
        "",
        *load_example(),
        *example_inputs(manifest),
        f'session = onnxruntime.InferenceSession("{file_of("onnx")}")',
        f'probabilities = session.run(["{OUTPUT}"], {{{inputs}}})[0]',
        *check_probabilities(),
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
        "print(labels[probabilities[0].argmax()], probabilities[0].max())",
    )


def _cpp(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    timesteps, features = spec["longest"], spec["features"]
    return "## ONNX from C++\n\nWith the C++ API of ONNX Runtime:\n\n" + code(
        "cpp",
        "#include <onnxruntime_cxx_api.h>",
        "#include <cmath>",
        "#include <cstdio>",
        "#include <cstdlib>",
        "#include <fstream>",
        "#include <iterator>",
        "#include <string>",
        "#include <vector>",
        "",
        f"// The numbers that follow a key of {EXAMPLE}, as they lie in memory.",
        "std::vector<float> numbers(const std::string& json, const std::string& key) {",
        "  std::vector<float> found;",
        '  const char* at = json.c_str() + json.find(\'"\' + key + "\\":") + key.size() + 3;',
        "  while (*at != '\"' && *at != '}') {",
        "    char* end = nullptr;",
        "    const float value = std::strtof(at, &end);",
        "    if (end != at) found.push_back(value);",
        "    at = end != at ? end : at + 1;",
        "  }",
        "  return found;",
        "}",
        "",
        "int main() {",
        f'  std::ifstream file("{EXAMPLE}");',
        "  const std::string json{std::istreambuf_iterator<char>(file), {}};",
        f'  std::vector<float> x = numbers(json, "{INPUT}");  // x[(b * {timesteps} + t) * '
        f"{features} + f]",
        f'  const std::vector<float> expected = numbers(json, "{OUTPUT}");',
        '  const float tolerance = numbers(json, "tolerance")[0];',
        "",
        '  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "classifier");',
        "  Ort::SessionOptions options;",
        "  options.SetIntraOpNumThreads(1);",
        f'  Ort::Session session(env, ORT_TSTR("{file_of("onnx")}"), options);',
        "",
        f"  std::vector<int64_t> shape = {{1, {timesteps}, {features}}};",
        "  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);",
        *(_CPP_TWO_INPUTS if varies(manifest) else _CPP_ONE_INPUT),
        "  const float* probabilities = answer[0].GetTensorData<float>();",
        f"  for (int i = 0; i < {len(spec['labels'])}; ++i) {{",
        '    std::printf("%d %.4f\\n", i, probabilities[i]);',
        "    if (!(std::abs(probabilities[i] - expected[i]) <= tolerance)) return 1;",
        "  }",
        "}",
    )


_CPP_ONE_INPUT = (
    "  auto input = Ort::Value::CreateTensor<float>(",
    "      memory, x.data(), x.size(), shape.data(), shape.size());",
    f'  const char* inputs[] = {{"{INPUT}"}};',
    f'  const char* outputs[] = {{"{OUTPUT}"}};',
    "  auto answer = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);",
)
_CPP_TWO_INPUTS = (
    f'  const std::vector<float> read = numbers(json, "{LENGTHS}");  // the steps of each sequence',
    "  std::vector<int32_t> lengths(read.begin(), read.end());",
    "  std::vector<Ort::Value> given;",
    "  given.push_back(Ort::Value::CreateTensor<float>(",
    "      memory, x.data(), x.size(), shape.data(), shape.size()));",
    "  given.push_back(Ort::Value::CreateTensor<int32_t>(",
    "      memory, lengths.data(), lengths.size(), shape.data(), 1));",
    f'  const char* inputs[] = {{"{INPUT}", "{LENGTHS}"}};',
    f'  const char* outputs[] = {{"{OUTPUT}"}};',
    "  auto answer = session.Run(Ort::RunOptions{}, inputs, given.data(), 2, outputs, 1);",
)


def _javascript(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    timesteps, features = spec["longest"], spec["features"]
    lengths = [f'  {LENGTHS}: new ort.Tensor("int32", Int32Array.from(example.{LENGTHS}), [1]),']
    return (
        "## ONNX from JavaScript\n\n`npm install onnxruntime-web` (or `onnxruntime-node`, where "
        "files are read with `fs`, not fetched)\n\n"
        + code(
            "javascript",
            'import * as ort from "onnxruntime-web";',
            "",
            f'const example = await (await fetch("{EXAMPLE}")).json();',
            f'const session = await ort.InferenceSession.create("{file_of("onnx")}");',
            f"const x = Float32Array.from(example.{INPUT}.flat(2)); "
            f"// x[(b * {timesteps} + t) * {features} + f]",
            f"const {{ {OUTPUT} }} = await session.run({{",
            f'  {INPUT}: new ort.Tensor("float32", x, [1, {timesteps}, {features}]),',
            *(lengths if varies(manifest) else []),
            "});",
            f"const differences = example.{OUTPUT}[0].map((p, i) => "
            f"Math.abs(p - {OUTPUT}.data[i]));",
            "const largest = Math.max(...differences);",
            "if (!(largest <= example.tolerance)) throw new Error(`off by ${largest}`);",
            f"console.log({OUTPUT}.data); // {len(spec['labels'])} numbers",
        )
    )
