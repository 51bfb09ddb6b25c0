"""Settings of the property tests of this folder."""

from __future__ import annotations

from hypothesis import settings

# No time limit for one example: a busy machine must not fail a test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
