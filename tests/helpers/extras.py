"""Which optional packages are installed, for tests whose result depends on that."""

from __future__ import annotations

from importlib.util import find_spec

WITH_TORCH = all(map(find_spec, ("torch", "safetensors")))
