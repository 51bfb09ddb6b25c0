"""TensorFlow's advice against tracing a function again and again, where that is what is meant."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def new_programs_expected() -> Iterator[None]:
    """Drop TensorFlow's warning that functions are traced anew: each model here has its own."""
    logger = tf.get_logger()
    without = _WithoutRetracing()
    logger.addFilter(without)
    try:
        yield
    finally:
        logger.removeFilter(without)


class _WithoutRetracing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()
