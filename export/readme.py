"""The README of a bundle: how to call each format, with the real names and shapes of the model."""

from __future__ import annotations

from typing import Any

from export.check import limits
from export.check.compare import Report, Row
from export.example import EXAMPLE, REQUEST
from export.formats.registry import FORMATS, REFERENCE, file_of
from export.markdown import every_step, next_states, state_units, varies
from export.network import FRAMES, INPUT, LENGTHS, OUTPUT
from export.signatures import STEP, STEPS
from rnn_tf.data.normalize import Normalize
from rnn_tf.run import PROFILE
from rnn_tf.streams.early import EarlyResult


def text(manifest: dict[str, Any], report: Report, *, profile: bool) -> str:
    """The whole README, Markdown, of a bundle with or without a profile of its training data."""
    parts = [
        _head(manifest), _files(manifest, profile), _contract(manifest), _frame_by_frame(manifest)
    ]  # fmt: skip
    for name in manifest["formats"]:
        parts += FORMATS[name].readme(manifest)
    parts += [_verification(report), _metrics(manifest)]
    return "\n".join(parts)


def _files(manifest: dict[str, Any], profile: bool) -> str:
    rows = []
    for name, details in manifest["formats"].items():
        rows.append(f"| `{file_of(name)}` | {FORMATS[name].about} |")
        step = details["answers"].get(STEP, file_of(name))
        if step != file_of(name):
            rows.append(f"| `{step}` | the same frame by frame, the state in and out |")
    return "\n".join(
        [
            "| file | |",
            "|---|---|",
            *rows,
            f"| `{REFERENCE}` | the trained model in float32, which the others were held against; "
            "it takes normalized input |",
            f"| `{EXAMPLE}` | one real input, what the formulas say of it, and how far float32 may "
            "be from that |",
            *(
                [f"| `{PROFILE}` | what the training data look like, for `rnn-tf predict` |"]
                * profile
            ),
            f"| `{REQUEST}` | the same input as TensorFlow Serving takes it |",
            "| `manifest.json` | names, shapes, labels, versions, and the SHA-256 of every file |",
            "| `verification.json` | what each format was asked, and how it answered |",
            "",
        ]
    )


def _head(manifest: dict[str, Any]) -> str:
    model, spec = manifest["model"], manifest["spec"]
    return (
        f"# {layers_of(model)} on {manifest['dataset']}\n\n"
        f"A recurrent classifier of {model['parameters']:,} parameters: it reads "
        f"{_steps(manifest)} of {spec['features']} numbers and says which of "
        f"{len(spec['labels'])} classes they are. Every format below computes the "
        "same function; quantized ones do to the rounding of their weights.\n"
    )


def _steps(manifest: dict[str, Any]) -> str:
    steps = f"{manifest['spec']['longest']} steps"
    return f"1 to {steps}" if varies(manifest) else steps


def layers_of(model: dict[str, Any]) -> str:
    """`gru(32)`, `2 layers of gru(32), both directions`"""
    layers = f"{model['layers']} layers of " if model["layers"] > 1 else ""
    both = ", both directions" if model["bidirectional"] else ""
    return f"{layers}{model['cell']}({model['units']}){both}"


def _contract(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    labels = ", ".join(spec["labels"])
    lengths = (
        f"- input `{LENGTHS}`: int32 `(batch,)`, how many steps each sequence has, 1 to "
        f"{spec['longest']}. What stands after them never matters, NaN included, nor do the other "
        "sequences of a batch.\n"
    )
    inputs = f"`{INPUT}` and `{LENGTHS}`" if varies(manifest) else f"`{INPUT}`"
    return (
        "## Input and output\n\n"
        f"- input `{INPUT}`: float32 `(batch, {spec['longest']}, "
        f"{spec['features']})`, any batch. Raw values as the data has them: the model's own "
        f"input, {Normalize.from_dict(spec['normalize']).describe()}, is made inside.\n"
        f"{lengths if varies(manifest) else ''}"
        f"- output `{OUTPUT}`: float32 `{_answer_shape(manifest)}`, the probability "
        f"of each class{_when(manifest)}: {labels}.\n"
        f"- in memory, number `f` of step `t` of sequence `b` is "
        f"`flat[(b * {spec['longest']} + t) * {spec['features']} + f]`: "
        "`flat[(b*T + t)*F + f]` for T steps of F numbers.\n\n"
        "There is no state between calls.\n\n"
        f"To check code of your own, give it {inputs} of `{EXAMPLE}`: no probability may differ "
        f"from `{OUTPUT}` there by more than `tolerance`, unless the weights are quantized. Each "
        "program below does so. `rnn-tf verify .` asks every format much more, and `rnn-tf predict "
        ". FILE` classifies a file.\n"
    )


def _answer_shape(manifest: dict[str, Any]) -> str:
    spec = manifest["spec"]
    steps = f"{spec['longest']}, " if every_step(manifest) else ""
    return f"(batch, {steps}{len(spec['labels'])})"


def _when(manifest: dict[str, Any]) -> str:
    if not every_step(manifest):
        return ""
    return " at every step" + (", of which those after the end mean nothing" * varies(manifest))


def _frame_by_frame(manifest: dict[str, Any]) -> str:
    """What a step is given and gives, or why there is none."""
    head = "## Answers while a sequence is still coming\n\n"
    if not next_states(manifest):
        return f"{head}There are none: {manifest['not_shipped'][STEP]}.\n"
    spec = manifest["spec"]
    files = [
        f"signature `{STEP}` of `{file}`" if file == file_of(name) else f"`{file}`"
        for name, details in manifest["formats"].items()
        for signature, file in details["answers"].items()
        if signature == STEP
    ]
    one = [
        f"`{details['answers'][STEP]}`"
        for name, details in manifest["formats"].items()
        if (step := FORMATS[name].step) and step.steps != STEPS and STEP in details["answers"]
    ]
    also = f" {', '.join(one)}: one step a call." if one else ""
    pairs = ", ".join(f"`{a}` from `{b}`" for a, b in next_states(manifest).items())
    shapes = ", ".join(
        f"`{name}` `(batch, {units})`" for name, units in state_units(manifest).items()
    )
    said = "what the model says there" if every_step(manifest) else (
        "what the model would say if the sequence ended there"
    )  # fmt: skip
    return (
        f"{head}In {', '.join(files)} the next frames go in with the state, and their answers come "
        "out with the state after them.\n\n"
        f"- input `{FRAMES}`: float32 `(batch, steps, {spec['features']})`, raw values, any number "
        f"of sequences and steps.{also}\n"
        f"- inputs {shapes}: float32, the state. Zeros when a sequence begins, then {pairs} of the "
        "call before.\n"
        f"- output `{OUTPUT}`: float32 `(batch, steps, {len(spec['labels'])})`: after each step, "
        f"{said}.\n\n"
        "The file keeps nothing between calls, so that any number of sessions share it: each has "
        "its own state. The model was trained for one policy: zeros where a sequence begins, which "
        f"has {_steps(manifest)}. Set to zeros at another time, or never, its state may grow "
        "without end, its answers become worse, and `rnn-tf evaluate RUN --stream` says by how "
        "much. "
        f"{_when_final(manifest)}`rnn-tf stream . FILE` answers lines of numbers as they come, and "
        "in Python `export.open_stream` keeps the state.\n"
    )


def _when_final(manifest: dict[str, Any]) -> str:
    if "early" not in manifest:
        return ""
    early = EarlyResult.from_dict(manifest["early"])
    return (
        "An answer is final as soon as a probability reaches "
        f"{early.rule.confidence:.6g} (`early` in the manifest): on the validation split this kept "
        f"the promised accuracy of {early.rule.promise:.2%}, on the test split it was "
        f"{early.test.accuracy:.2%}, after {early.test.share:.1%} of a sequence on average. "
    )


def _verification(report: Report) -> str:
    names = list(dict.fromkeys(row.format for row in report.rows))
    rows = []
    for name in names:
        test, *rest = [row for row in report.rows if row.format == name]
        worst = max(rest, key=lambda row: row.max_difference / row.limit)
        rows.append(
            f"| {name} | {test.accuracy:.2%} | {test.agreement:.2%} | {_beside_limit(test)} "
            f"| {test.mean_difference:.1e} | {_beside_limit(worst)} ({worst.family}) |"
        )
    test = report.rows[0]
    examples = f"the {test.examples:,} examples"
    if test.examples < report.test_examples:
        examples = f"{test.examples:,} of the {report.test_examples:,} examples"
    others = dict.fromkeys(row.family for row in report.rows if row.family != test.family)
    return "\n".join(
        [
            "## Verification",
            "",
            f"Each format answered {examples} of the test split and was held "
            "against the formulas in float64: its accuracy, the share of equal answers, the "
            "largest and the mean difference of a probability. Then it was asked: "
            f"{', '.join(others)}. What is not quantized must be as near as float32 rounding "
            "allows for these weights and inputs: the limit, which is computed by rounding the "
            f"formulas at random. What is quantized may lose {limits.MOST_ACCURACY_LOSS:.1%} of "
            f"accuracy and must give {limits.LEAST_AGREEMENT:.0%} equal answers, or all but one. "
            "`verification.json` has all figures.",
            "",
            "| format | accuracy | equal answers | largest difference (limit) | mean "
            "| on other input, nearest to its limit |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _beside_limit(row: Row) -> str:
    quantized = row.format in FORMATS and FORMATS[row.format].quantized
    return f"{row.max_difference:.1e}" + ("" if quantized else f" ({row.limit:.1e})")


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
