"""Pictures as arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Channels that a picture can have: grey levels, RGB, RGBA.
CHANNELS = (1, 3, 4)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of another size, stretched to it: uint8 `(height, width, channels)`.

    `picture` is uint8 `(any, any, channels)` with 1, 3 or 4 channels.
    """
    channels = picture.shape[-1]
    image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized).reshape(height, width, channels)
