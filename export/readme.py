"""The README of a bundle: how to call each format, with the real names and shapes of the model."""

from __future__ import annotations

from typing import Any

from export.check import limits
from export.check.compare import Report, Row
from export.example import EXAMPLE, REQUEST
from export.formats.registry import FORMATS, REFERENCE, file_of
from export.markdown import varies
from export.network import INPUT, LENGTHS, OUTPUT
from rnn_tf.data.normalize import Normalize
from rnn_tf.run import PROFILE


def text(manifest: dict[str, Any], report: Report, *, profile: bool) -> str:
    """The whole README, Markdown, of a bundle with or without a profile of its training data."""
    parts = [_head(manifest), _files(manifest, profile), _contract(manifest)]
    for name in manifest["formats"]:
        parts += FORMATS[name].readme(manifest)
    parts += [_verification(report), _metrics(manifest)]
    return "\n".join(parts)


def _files(manifest: dict[str, Any], profile: bool) -> str:
    rows = [f"| `{file_of(name)}` | {FORMATS[name].about} |" for name in manifest["formats"]]
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
        f"- output `{OUTPUT}`: float32 `(batch, {len(spec['labels'])})`, the probability "
        f"of each class: {labels}.\n"
        f"- in memory, number `f` of step `t` of sequence `b` is "
        f"`flat[(b * {spec['longest']} + t) * {spec['features']} + f]`: "
        "`flat[(b*T + t)*F + f]` for T steps of F numbers.\n\n"
        "There is no state between calls.\n\n"
        f"To check code of your own, give it {inputs} of `{EXAMPLE}`: no probability may differ "
        f"from `{OUTPUT}` there by more than `tolerance`, unless the weights are quantized. Each "
        "program below does so. `rnn-tf verify .` asks every format much more, and `rnn-tf predict "
        ". FILE` classifies a file.\n"
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
