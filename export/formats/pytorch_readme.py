"""The part of a bundle's README that is about PyTorch: a module for this very model."""

from __future__ import annotations

from typing import Any

from export.formats.registry import file_of
from export.markdown import every_step, given, last_answer, load_example, varies
from export.network import INPUT, LENGTHS, OUTPUT

# Expressions of `x`, where the name is not that of a function in torch.nn.functional.
ACTIVATIONS = {
    "exponential": "torch.exp(x)",
    "hard_shrink": "functional.hardshrink(x)",
    "hard_sigmoid": "functional.hardsigmoid(x)",
    "hard_silu": "functional.hardswish(x)",
    "hard_tanh": "functional.hardtanh(x)",
    "leaky_relu": "functional.leaky_relu(x, 0.2)",
    "linear": "x",
    "log_sigmoid": "functional.logsigmoid(x)",
    "sigmoid": "torch.sigmoid(x)",
    "soft_shrink": "functional.softshrink(x)",
    "sparse_plus": "torch.where(x < 1, (x + 1).clamp(min=0) ** 2 / 4, x)",
    "sparse_sigmoid": "((x + 1) / 2).clamp(0, 1)",
    "squareplus": "(x + (x * x + 4).sqrt()) / 2",
    "tanh": "torch.tanh(x)",
    "tanh_shrink": "functional.tanhshrink(x)",
}
# Where PyTorch has no layer with this activation: what steps read of `sequence`, and what they do.
# A GRU resets the bias `c` with the state.
FRAMES = {
    "simple_rnn": "functional.linear(sequence, w, b + c).unbind(1)",
    "lstm": "functional.linear(sequence, w, b + c).unbind(1)",
    "gru": "functional.linear(sequence, w, b).unbind(1)",
}
STEPS = {
    "simple_rnn": ("            h = activation(torch.addmm(step, h, u))",),
    "lstm": (
        "            i, f, g, o = torch.addmm(step, h, u).chunk(4, 1)",
        "            memory = gate(f) * memory + gate(i) * activation(g)",
        "            h = gate(o) * activation(memory)",
    ),
    "gru": (
        "            r, z, g = step.chunk(3, 1)",
        "            hr, hz, hg = torch.addmm(c, h, u).chunk(3, 1)",
        "            z = gate(z + hz)",
        "            h = z * h + (1 - z) * activation(g + gate(r + hr) * hg)",
    ),
}


def code(manifest: dict[str, Any]) -> list[str]:
    """Python that loads the file and asks it, with PyTorch and safetensors only."""
    own_layer = manifest["formats"]["torch"]["layer"] is not None
    spec, file = manifest["spec"], file_of("torch")
    module = _with_layer(manifest) if own_layer else _written_out(manifest)
    shape = f"1, {spec['longest']}, {spec['features']}"
    cut = [f"{OUTPUT} = {OUTPUT}[:, : lengths[0]]  # after its end they mean nothing"]
    lengths = f'lengths = torch.tensor(example["{LENGTHS}"])  # (1,), the steps of each sequence'
    return [
        "import json",
        "",
        "import torch",
        "from safetensors import safe_open",
        "from torch import nn",
        *([] if own_layer else ["from torch.nn import functional"]),
        *(
            [f"from torch.nn.utils.rnn import {', '.join(_packing(manifest))}"]
            if own_layer and varies(manifest)
            else []
        ),
        "",
        "",
        *module,
        "",
        "",
        *load_example(),
        f'x = torch.tensor(example["{INPUT}"], dtype=torch.float32)  # ({shape}), raw values; '
        "any batch",
        *([lengths] if varies(manifest) else []),
        "model = Classifier().eval()",
        f'with safe_open("{file}", framework="pt") as file:',
        "    model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})",
        '    labels = json.loads(file.metadata()["labels"])',
        "with torch.inference_mode():",
        f"    probabilities = model({given(manifest, '{value}')})",
        *(cut if every_step(manifest) and varies(manifest) else []),
        f'difference = (probabilities - torch.tensor(example["{OUTPUT}"])).abs().max()',
        'assert difference <= example["tolerance"], difference',
        f"last = {last_answer(manifest)}",
        "print(labels[int(last.argmax())], float(last.max()))",
    ]


def _packing(manifest: dict[str, Any]) -> list[str]:
    """PyTorch's functions for sequences of different lengths."""
    return ["pack_padded_sequence", *(["pad_packed_sequence"] if every_step(manifest) else [])]


def _with_layer(manifest: dict[str, Any]) -> list[str]:
    spec, model = manifest["spec"], manifest["model"]
    options = ["batch_first=True"]
    if model["activation"] == "relu":
        options.append('nonlinearity="relu"')
    if model["layers"] > 1:
        options.append(f"num_layers={model['layers']}")
    if model["bidirectional"]:
        options.append("bidirectional=True")
    layer = f"nn.{manifest['formats']['torch']['layer']}"
    return [
        "class Classifier(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        f"        self.recurrent = {layer}(",
        f"            {spec['features']}, {model['units']}, {', '.join(options)}",
        "        )",
        f"        self.dense = nn.Linear({_width(model)}, {len(spec['labels'])})",
        "",
        *(_read_packed(manifest) if varies(manifest) else _read_whole(manifest)),
        "        return torch.softmax(self.dense(final), -1)",
    ]


def _read_whole(manifest: dict[str, Any]) -> list[str]:
    return [
        "    def forward(self, sequence):",
        "        states, _ = self.recurrent(sequence)",
        *_final(manifest),
    ]


def _read_packed(manifest: dict[str, Any]) -> list[str]:
    """PyTorch's own way to leave out the padding; `last` are the states at the ends."""
    model = manifest["model"]
    if every_step(manifest):
        return [
            "    def forward(self, sequence, lengths):",
            "        packed = pack_padded_sequence(sequence, lengths, True, enforce_sorted=False)",
            "        states, _ = self.recurrent(packed)",
            "        steps = sequence.shape[1]",
            "        final, _ = pad_packed_sequence(states, True, total_length=steps)",
        ]
    last = "(last, _)" if model["cell"] == "lstm" else "last"
    final = "torch.cat([last[-2], last[-1]], 1)" if model["bidirectional"] else "last[-1]"
    return [
        "    def forward(self, sequence, lengths):",
        "        packed = pack_padded_sequence(sequence, lengths, True, enforce_sorted=False)",
        f"        _, {last} = self.recurrent(packed)",
        f"        final = {final}",
    ]


def _width(model: dict[str, Any]) -> int:
    return int(model["units"] * (2 if model["bidirectional"] else 1))


def _final(manifest: dict[str, Any]) -> list[str]:
    """The last state of each direction, out of `states`; all where every step is answered."""
    model = manifest["model"]
    if every_step(manifest):
        return ["        final = states"]
    if not model["bidirectional"]:
        return ["        final = states[:, -1]"]
    units = model["units"]
    return [
        "        # Reading backward ends at the first step.",
        f"        final = torch.cat([states[:, -1, :{units}], states[:, 0, {units}:]], 1)",
    ]


def _written_out(manifest: dict[str, Any]) -> list[str]:
    """A module whose recurrent weights are named as PyTorch's layers name theirs."""
    model, masked = manifest["model"], varies(manifest)
    functions = {"activation": model["activation"]}
    if model["cell"] != "simple_rnn":
        functions["gate"] = manifest["formats"]["torch"]["recurrent_activation"]
    shapes = manifest["formats"]["torch"]["tensors"]
    prefix = "recurrent."
    recurrent = [
        f'            "{name.removeprefix(prefix)}": {tuple(shape)},'
        for name, shape in shapes.items()
        if name.startswith(prefix)
    ]
    return [
        *(line for name in functions for line in _function(name, functions[name])),
        "class Classifier(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        shapes = {",
        *recurrent,
        "        }",
        "        empty = {name: torch.empty(shape) for name, shape in shapes.items()}",
        "        self.recurrent = nn.ParameterDict(empty)",
        f"        self.dense = nn.Linear({_width(model)}, {len(manifest['spec']['labels'])})",
        "",
        f"    def read(self, sequence, {'valid, ' * masked}end):",
        '        w, b = self.recurrent["weight_ih" + end], self.recurrent["bias_ih" + end]',
        '        u, c = self.recurrent["weight_hh" + end].t(), self.recurrent["bias_hh" + end]',
        f"        h = sequence.new_zeros(len(sequence), {model['units']})",
        "        states = []",
        *_loop(model["cell"], masked=masked),
        "            states.append(h)",
        "        return torch.stack(states, 1)",
        "",
        f"    def forward(self, states{', lengths' * masked}):",
        *(_MASK if masked else []),
        f"        for layer in range({model['layers']}):",
        f'            directions = [self.read(states, {"valid, " * masked}f"_l{{layer}}")]',
        *(
            [
                f"            backward = self.read(states.flip(1), {'valid.flip(1), ' * masked}"
                'f"_l{layer}_reverse")',
                "            directions.append(backward.flip(1))",
            ]
            if model["bidirectional"]
            else []
        ),
        "            states = torch.cat(directions, 2)",
        *_final(manifest),
        "        return torch.softmax(self.dense(final), -1)",
    ]


_MASK = [
    "        steps = torch.arange(states.shape[1])",
    "        valid = (steps < lengths[:, None])[:, :, None]",
]


def _loop(cell: str, *, masked: bool) -> list[str]:
    """The time steps; `masked`, a sequence that has ended keeps its state."""
    states = ["h", "memory"] if cell == "lstm" else ["h"]
    begin = ["        memory = torch.zeros_like(h)"] if cell == "lstm" else []
    if not masked:
        return [*begin, f"        for step in {FRAMES[cell]}:", *STEPS[cell]]
    return [
        *begin,
        f"        for step, there in zip({FRAMES[cell]}, valid.unbind(1)):",
        f"            before = {', '.join(states)}{',' * (len(states) == 1)}",
        *STEPS[cell],
        *(
            f"            {state} = torch.where(there, {state}, before[{i}])"
            for i, state in enumerate(states)
        ),
    ]


def _function(name: str, activation: str) -> list[str]:
    expression = ACTIVATIONS.get(activation, f"functional.{activation}(x)")
    return [f"def {name}(x):", f"    return {expression}", "", ""]
