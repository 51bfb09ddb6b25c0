"""Digits drawn with a pen: lines and arcs with round ends, as a person would draw them."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image, ImageDraw

Point = tuple[float, float]


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points of an ellipse's arc, degrees clockwise from the right, y downwards."""
    turns = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


# Strokes of each digit in a square of side 1, its origin at the upper left.
STROKES: dict[int, list[list[Point]]] = {
    0: [arc(0.5, 0.5, 0.3, 0.48, -90, 270)],
    1: [[(0.38, 0.2), (0.55, 0.02), (0.5, 0.98)]],
    2: [[*arc(0.48, 0.28, 0.28, 0.26, 190, 380), (0.2, 0.96), (0.82, 0.93)]],
    3: [[*arc(0.45, 0.27, 0.27, 0.24, 200, 440), *arc(0.45, 0.73, 0.32, 0.25, -80, 150)]],
    4: [[(0.3, 0.04), (0.2, 0.55), (0.82, 0.52)], [(0.68, 0.1), (0.62, 0.98)]],
    5: [
        [(0.75, 0.05), (0.32, 0.06), (0.27, 0.42), *arc(0.45, 0.7, 0.3, 0.28, -110, 140)],
    ],
    6: [[(0.65, 0.03), (0.4, 0.25), (0.25, 0.6), *arc(0.48, 0.73, 0.24, 0.24, 190, 560)]],
    7: [[(0.18, 0.1), (0.8, 0.06), (0.42, 0.98)]],
    8: [
        [
            (0.66, 0.14), *arc(0.48, 0.24, 0.22, 0.2, -30, -270), (0.56, 0.5),
            *arc(0.5, 0.73, 0.24, 0.24, -60, 240), (0.6, 0.38), (0.68, 0.18),
        ],
    ],
    9: [[*arc(0.48, 0.28, 0.25, 0.25, -10, -350), (0.73, 0.2), (0.7, 0.6), (0.6, 0.98)]],
}  # fmt: skip


def draw(
    digit: int,
    *,
    size: tuple[int, int] = (280, 280),
    box: tuple[float, float, float] = (0.15, 0.15, 0.7),
    pen: float = 0.09,
    mode: str = "RGB",
    paper: Any = "white",
    ink: Any = "black",
) -> Image.Image:
    """A digit on a sheet of `size`.

    `box` is left, top and side of its square, shares of the sheet's shorter side; `pen` is the
    width of the stroke, a share of the square.
    """
    # Larger, then reduced: ImageDraw's own lines have steps.
    times = 4
    sheet = Image.new(mode, (size[0] * times, size[1] * times), paper)
    tool = ImageDraw.Draw(sheet)
    unit = min(sheet.size)
    left, top, side = (part * unit for part in box)
    width = pen * side
    for stroke in STROKES[digit]:
        points = [(left + x * side, top + y * side) for x, y in stroke]
        tool.line(points, fill=ink, width=max(1, round(width)), joint="curve")
        for x, y in (points[0], points[-1]):
            r = width / 2
            tool.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    return sheet.reduce(times)
