"""JSON files that carry a checksum of themselves, so that no byte of them changes unnoticed.

It guards against damage, not against malice: whoever changes a file can write its checksum anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

KEY = "checksum"
# The second line of a sealed file. All the other bytes are what it is the SHA-256 of.
_LINE = re.compile(rb'  "checksum": "([0-9a-f]{64})",')


def sealed(values: Mapping[str, Any]) -> str:
    """`values`, at least one, as JSON; its second line is their checksum, whatever they had."""
    rest = {name: value for name, value in values.items() if name != KEY}
    text = json.dumps(rest, indent=2, ensure_ascii=False) + "\n"
    begin, rest_of_text = text.split("\n", 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{begin}\n  "{KEY}": "{digest}",\n{rest_of_text}'


def is_sealed(data: bytes) -> bool:
    """Whether these are the very bytes of a text that `sealed` gave."""
    begin, line, *rest = data.split(b"\n", 2) if data.count(b"\n") > 1 else (data, b"")
    found = _LINE.fullmatch(line)
    whole = b"\n".join([begin, *rest])
    return found is not None and found[1].decode() == hashlib.sha256(whole).hexdigest()
