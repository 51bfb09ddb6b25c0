"""Pictures of something drawn, brought into the form in which the training data show theirs.

MNIST's description says how its digits were made: scaled into a box of 20x20 pixels, the aspect
kept, then moved so that their centre of mass is the centre of a 28x28 field
(http://yann.lecun.com/exdb/mnist/). A digit that is drawn smaller, beside the middle or dark on
light is another thing to a network that has seen only those. Whether training pictures are of this
kind, and with which box and centre, is found in their pixels, so it holds for any data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Levels go from 0 to 255. What differs less than this from the paper may be paper.
NEAR = 25
# The share of border pixels that must be paper: of all training pictures, and of one to be read.
ALL_PAPER, MOSTLY_PAPER = 0.98, 0.75
# The share of training pictures that must have the same size and centre, for a style with these.
ALL_ALIKE = 0.95
# The share of the ink's strength below which a pixel is paper: shadows, JPEG's ringing.
FAINT = 0.2
# Strokes of less than this share of the training pictures' width are thickened, on a grid that is
# this many times as fine.
THIN, FINE = 0.5, 4


@dataclass(frozen=True)
class Style:
    """How training pictures of one channel show what is drawn."""

    paper: float  # level of the ground
    ink: float  # level of the strongest strokes
    side: float  # longer side of the drawing, in pixels; 0: differs from picture to picture
    pen: float  # width of a stroke, in pixels
    centre_y: float  # centre of mass, in pixels from the first; 0 where `side` is 0
    centre_x: float

    def fits(self, x: np.ndarray) -> bool:
        """Whether a picture `(height, width)` is in this style already."""
        ink = np.abs(x - self.paper)
        if np.mean(_border(ink) < NEAR) < MOSTLY_PAPER or not (ink > NEAR).any():
            return False
        if not self.side:
            return True
        height, width = _shape_of(ink > NEAR)
        centre = np.subtract(_centre_of_mass(ink), (self.centre_y, self.centre_x))
        # Whole pixels were moved in training, so half of one is within the style; and a little.
        return abs(max(height, width) - self.side) <= 1 and np.abs(centre).max() <= 0.75


def find_style(x: np.ndarray) -> Style | None:
    """The style of grey pictures `(n, height, width)`; None when they have no paper in common."""
    border = np.concatenate([_border(picture) for picture in x])
    paper = float(np.median(border))
    if np.mean(np.abs(border - paper) < NEAR) < ALL_PAPER:
        return None
    inks = np.abs(x.astype(np.float32) - paper)
    strength = float(np.median(inks.max(axis=(1, 2))))
    ink = paper + strength if paper + strength <= 255 else paper - strength
    drawn = [ink for ink in inks if (ink > NEAR).any()]
    if not drawn:
        return None
    sides = np.array([max(_shape_of(ink > NEAR)) for ink in drawn])
    centres = np.array([_centre_of_mass(ink) for ink in drawn])
    side, centre = float(np.median(sides)), np.median(centres, axis=0)
    pen = float(np.median([_pen_width(ink > strength / 2) for ink in drawn]))
    alike = (np.abs(sides - side) <= 1) & (np.abs(centres - centre).max(axis=1) <= 0.75)
    if np.mean(alike) < ALL_ALIKE:
        return Style(paper, ink, 0, pen, 0, 0)
    # The middle of the range: centres were rounded to whole pixels on both sides of it.
    centre = (centres[alike].min(axis=0) + centres[alike].max(axis=0)) / 2
    return Style(paper, ink, side, pen, *map(float, np.round(centre * 2) / 2))


def redraw(
    picture: Image.Image, style: Style, shape: tuple[int, int]
) -> tuple[np.ndarray, list[str]] | None:
    """A picture `(height, width)` float32 in a style, and what was done for that.

    `picture` is RGB or RGBA. None when it is no drawing on paper of one colour.
    """
    found = _ink(picture)
    if found is None:
        return None
    ink, notes = found
    if not ink.any():
        return np.full(shape, style.paper, np.float32), ["nothing is drawn on it"]
    if style.side:
        drawn, done = _place(ink, style, shape)
    else:
        drawn, done = _fit(ink, shape)
    notes += done
    return style.paper + drawn / drawn.max() * (style.ink - style.paper), notes


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not picture.has_transparency_data:
        return False
    alpha = picture.convert("RGBA").getchannel("A")
    return int(np.asarray(alpha).min()) < 255


def lay_on_paper(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """An RGBA picture as RGB, on black or white, whichever differs more from what is visible."""
    if not is_transparent(picture):
        return picture.convert("RGB"), []
    pixels = np.asarray(picture, np.float32)
    alpha = pixels[..., 3]
    visible = float((pixels[..., :3].mean(axis=2) * alpha).sum() / max(alpha.sum(), 1))
    name = "white" if visible < 128 else "black"
    paper = Image.new("RGBA", picture.size, name)
    note = f"laid on {name} where it is transparent"
    return Image.alpha_composite(paper, picture).convert("RGB"), [note]


def _ink(picture: Image.Image) -> tuple[np.ndarray, list[str]] | None:
    """How much ink is where: float32 `(height, width)`, 0 to 1, and how it was told from paper."""
    notes: list[str] = []
    if picture.mode == "RGBA":
        picture, notes = lay_on_paper(_opaque_part(picture))
    pixels = np.asarray(picture, np.float32)
    paper = _paper(pixels)
    # The largest difference of the three colours: yellow on white is ink too.
    difference = np.abs(pixels - paper).max(axis=2)
    border = _border(difference)
    if np.mean(border < NEAR) < MOSTLY_PAPER:
        return None
    grain = float(np.quantile(border[border < NEAR], 0.95))
    strongest = float(difference.max())
    if strongest < NEAR or strongest < 3 * grain:
        return np.zeros_like(difference), notes
    faint = max(FAINT * strongest, 2 * grain)
    ink = np.clip((difference - faint) / (strongest - faint), 0, 1)
    darker = float((pixels - paper)[difference > strongest / 2].mean()) < 0
    notes.append(f"read as {'dark ink on light' if darker else 'light ink on dark'} paper")
    return ink, notes


def _opaque_part(picture: Image.Image) -> Image.Image:
    """Cut transparent margins off a sheet of paper; leave a drawing without paper as it is."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
    if box is None:
        return picture
    sheet = picture.crop(box)
    pixels = np.asarray(sheet, np.float32)
    opaque = np.mean(_border(pixels[..., 3]) > 127) > ALL_PAPER
    written_on = np.ptp(pixels[..., :3][pixels[..., 3] > 127], axis=0).max() > NEAR
    return sheet if opaque and written_on else picture


def _paper(pixels: np.ndarray) -> np.ndarray:
    """The paper's colour at every pixel of `(height, width, 3)`: a plane through the border.

    A plane, as paper is often lit from one side.
    """
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    place = np.stack([np.ones_like(x), x / width, y / height], axis=2)
    border, where = _border(pixels), _border(place)
    paper = np.abs(border - np.median(border, axis=0)).max(axis=1) < 2 * NEAR
    plane = np.linalg.lstsq(where[paper], border[paper], rcond=None)[0]
    result: np.ndarray = place @ plane
    return result


def _place(ink: np.ndarray, style: Style, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The drawing scaled to the style's side and moved to its centre, and that this was done."""
    top, bottom, left, right = _box(ink > 0)
    cut = ink[top:bottom, left:right]
    notes = [
        f"the drawing, {cut.shape[1]}x{cut.shape[0]} of {ink.shape[1]}x{ink.shape[0]} pixels, "
        f"scaled to a side of {style.side:.0f} and centred by its mass"
    ]
    fine = _resize(cut, FINE * style.side / max(cut.shape))
    if _pen_width(fine > 0.5) < THIN * style.pen * FINE:
        notes.append("thin strokes thickened")
        fine = _thicken(fine, round(style.pen * FINE))
    small = _resize(fine, style.side / max(fine.shape))
    y, x = _centre_of_mass(small)
    down, aside = round(style.centre_y - y), round(style.centre_x - x)
    # On a field so large that nothing falls off it; what is beyond the picture is cut then.
    margin = max(*small.shape, abs(down), abs(aside))
    field = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), np.float32)
    rows, columns = margin + down, margin + aside
    field[rows : rows + small.shape[0], columns : columns + small.shape[1]] = small
    return field[margin : margin + shape[0], margin : margin + shape[1]], notes


def _thicken(ink: np.ndarray, width: int) -> np.ndarray:
    """Strokes that are hardly a pixel wide, as with a round pen of `width`."""
    grown = np.pad(ink, width)
    reach = width // 2
    near = [
        np.roll(grown, (y, x), (0, 1))
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
        if x * x + y * y <= reach * reach
    ]
    thick: np.ndarray = np.max(near, axis=0)
    top, bottom, left, right = _box(thick > 0)
    return thick[top:bottom, left:right]


def _fit(ink: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The whole sheet scaled into `shape`, with paper at two sides, and that this was done."""
    scale = min(shape[0] / ink.shape[0], shape[1] / ink.shape[1])
    small = _resize(ink, scale)[: shape[0], : shape[1]]
    field = np.zeros(shape, np.float32)
    top, left = (shape[0] - small.shape[0]) // 2, (shape[1] - small.shape[1]) // 2
    field[top : top + small.shape[0], left : left + small.shape[1]] = small
    sheet = f"{ink.shape[1]}x{ink.shape[0]}"
    return field, [f"scaled from {sheet} to {shape[1]}x{shape[0]}, its aspect kept"]


def _resize(ink: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(size * scale)) for size in ink.shape)
    grey = Image.fromarray((ink * 255).round().astype(np.uint8))
    small = np.asarray(grey.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    # The strongest pixel stays at the full level, else a thin pen would fade.
    return small / max(float(small.max()), 1)


def _border(picture: np.ndarray) -> np.ndarray:
    """The pixels at the four edges of `(height, width, ...)`, one after the other."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def _box(drawn: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is True in `(height, width)`, ends not included."""
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _shape_of(drawn: np.ndarray) -> tuple[int, int]:
    top, bottom, left, right = _box(drawn)
    return bottom - top, right - left


def _pen_width(drawn: np.ndarray) -> float:
    """The width of the strokes in `(height, width)`: twice their area by their outline's length."""
    ringed = np.pad(drawn, 1).astype(np.int8)
    outline = sum(int(np.count_nonzero(np.diff(ringed, axis=axis))) for axis in (0, 1))
    return 2 * int(np.count_nonzero(drawn)) / max(outline, 1)


def _centre_of_mass(ink: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of mass of `(height, width)`."""
    mass = float(ink.sum())
    rows, columns = np.arange(ink.shape[0]), np.arange(ink.shape[1])
    return float(ink.sum(axis=1) @ rows) / mass, float(ink.sum(axis=0) @ columns) / mass
