"""The part of a bundle's README that is about ONNX."""

from __future__ import annotations

from typing import Any

from export.example import EXAMPLE
from export.formats.registry import file_of
from export.markdown import (
    check_last,
    check_probabilities,
    code,
    each_frame,
    every_step,
    example_inputs,
    given,
    last_answer,
    load_example,
    next_states,
    state_units,
    varies,
    zero_states,
)
from export.network import FRAMES, INPUT, LENGTHS, OUTPUT
from export.signatures import STEP


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
        *check_probabilities(manifest),
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
        f"last = {last_answer(manifest)}",
        "print(labels[last.argmax()], last.max())",
        *(_python_step(manifest) if next_states(manifest) else []),
    )


def _python_step(manifest: dict[str, Any]) -> list[str]:
    outputs = ", ".join(f'"{name}"' for name in (OUTPUT, *next_states(manifest).values()))
    return [
        "",
        f'step = onnxruntime.InferenceSession("{_step_file(manifest)}")',
        *zero_states(manifest, "np.zeros((1, {}), np.float32)"),
        f"outputs = [{outputs}]",
        each_frame(manifest),
        f'    answer, *after = step.run(outputs, {{"{FRAMES}": x[:, t : t + 1], **states}})',
        "    states = dict(zip(states, after))",
        *check_last(manifest, "answer[0, -1]"),
    ]


def _step_file(manifest: dict[str, Any]) -> str:
    return str(manifest["formats"]["onnx"]["answers"][STEP])


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
        *_cpp_check(manifest),
        *(_cpp_step(manifest) if next_states(manifest) else []),
        "}",
    )


def _cpp_check(manifest: dict[str, Any]) -> list[str]:
    classes = len(manifest["spec"]["labels"])
    count, name = str(classes), "i"
    if every_step(manifest):  # of every step that the sequence has
        count, name = "static_cast<int>(expected.size())", f"i % {classes}"
    return [
        f"  for (int i = 0; i < {count}; ++i) {{",
        f'    std::printf("%d %.4f\\n", {name}, probabilities[i]);',
        "    if (!(std::abs(probabilities[i] - expected[i]) <= tolerance)) return 1;",
        "  }",
    ]


def _cpp_step(manifest: dict[str, Any]) -> list[str]:
    spec, units = manifest["spec"], state_units(manifest)
    features, classes = spec["features"], len(spec["labels"])
    inputs = ", ".join(f'"{name}"' for name in (FRAMES, *units))
    outputs = ", ".join(f'"{name}"' for name in (OUTPUT, *next_states(manifest).values()))
    states = ", ".join(f"std::vector<float>({each})" for each in units.values())
    steps = "lengths[0]" if varies(manifest) else spec["longest"]
    return [
        "",
        "  // Frame by frame: the states that come out go in with the next frame.",
        f'  Ort::Session step(env, ORT_TSTR("{_step_file(manifest)}"), options);',
        f"  const char* step_inputs[] = {{{inputs}}};",
        f"  const char* step_outputs[] = {{{outputs}}};",
        f"  const std::vector<int64_t> frame_shape = {{1, 1, {features}}};",
        f"  std::vector<std::vector<float>> states = {{{states}}};",
        "  std::vector<float> said;",
        f"  for (int t = 0; t < {steps}; ++t) {{",
        "    std::vector<Ort::Value> read;",
        "    read.push_back(Ort::Value::CreateTensor<float>(",
        f"        memory, x.data() + t * {features}, {features}, frame_shape.data(), 3));",
        "    for (auto& state : states) {",
        "      const std::vector<int64_t> state_shape = {1, static_cast<int64_t>(state.size())};",
        "      read.push_back(Ort::Value::CreateTensor<float>(",
        "          memory, state.data(), state.size(), state_shape.data(), 2));",
        "    }",
        "    auto after = step.Run(Ort::RunOptions{}, step_inputs, read.data(), read.size(),",
        f"                          step_outputs, {1 + len(units)});",
        "    for (size_t i = 0; i < states.size(); ++i) {",
        "      const float* next = after[i + 1].GetTensorData<float>();",
        "      states[i].assign(next, next + states[i].size());",
        "    }",
        "    const float* p = after[0].GetTensorData<float>();",
        f"    said.assign(p, p + {classes});",
        "  }",
        f"  for (int i = 0; i < {classes}; ++i) {{",
        f"    const float last = expected[expected.size() - {classes} + i];",
        "    if (!(std::abs(said[i] - last) <= tolerance)) return 1;",
        "  }",
    ]


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
            f"const expected = example.{OUTPUT}[0]{'.flat()' if every_step(manifest) else ''};",
            f"const differences = expected.map((p, i) => Math.abs(p - {OUTPUT}.data[i]));",
            "const largest = Math.max(...differences);",
            "if (!(largest <= example.tolerance)) throw new Error(`off by ${largest}`);",
            f"console.log({OUTPUT}.data); // {_count(manifest)} numbers",
            *(_javascript_step(manifest) if next_states(manifest) else []),
        )
    )


def _count(manifest: dict[str, Any]) -> str:
    """How many numbers an answer has."""
    spec = manifest["spec"]
    classes = str(len(spec["labels"]))
    return f"{spec['longest']} * {classes}" if every_step(manifest) else classes


def _javascript_step(manifest: dict[str, Any]) -> list[str]:
    spec = manifest["spec"]
    features, classes = spec["features"], len(spec["labels"])
    zeros = (
        f'  {name}: new ort.Tensor("float32", new Float32Array({units}), [1, {units}]),'
        for name, units in state_units(manifest).items()
    )
    after = ", ".join(f"{name}: said.{after}" for name, after in next_states(manifest).items())
    steps = f"example.{LENGTHS}[0]" if varies(manifest) else spec["longest"]
    return [
        "",
        "// Frame by frame: the states that come out go in with the next frame.",
        f'const step = await ort.InferenceSession.create("{_step_file(manifest)}");',
        "let said, states = {",
        *zeros,
        "};",
        f"for (let t = 0; t < {steps}; t++) {{",
        f"  const frame = x.slice(t * {features}, (t + 1) * {features});",
        f'  const {FRAMES} = new ort.Tensor("float32", frame, [1, 1, {features}]);',
        f"  said = await step.run({{ {FRAMES}, ...states }});",
        f"  states = {{ {after} }};",
        "}",
        f"const last = expected.slice(-{classes}).map((p, i) => "
        f"Math.abs(p - said.{OUTPUT}.data[i]));",
        "if (!(Math.max(...last) <= example.tolerance)) throw new Error(`off by ${last}`);",
    ]
