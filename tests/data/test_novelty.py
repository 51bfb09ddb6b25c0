"""How unusual an example is: what is usual stays below, what is not is found."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from rnn_tf.data import SequenceData, Split
from rnn_tf.data.novelty import MOST_NUMBERS, Novelty, at_one_length, measure_novelty

RANDOM = np.random.default_rng(0)


def split(x: np.ndarray, lengths: np.ndarray | None = None) -> Split:
    return Split(x, np.zeros(len(x), np.int32), lengths)


@pytest.fixture(scope="module")
def of_mnist(mnist: SequenceData) -> Novelty:
    return measure_novelty(mnist.train, mnist.valid, one_unit=True)


def separation(usual: np.ndarray, unusual: np.ndarray) -> float:
    """The chance that an unusual example is called more unusual than a usual one (AUROC)."""
    higher = (unusual[:, None] > usual[None]).mean() + (unusual[:, None] == usual[None]).mean() / 2
    return float(higher)


# --- pictures ---
def glyphs(characters: str) -> np.ndarray:
    """Printed characters as MNIST shows its digits: 20 pixels high or wide, in the middle."""
    pictures = []
    for character in characters:
        sheet = Image.new("L", (120, 120), 0)
        font = ImageFont.load_default(60)
        ImageDraw.Draw(sheet).text((60, 60), character, 255, font=font, anchor="mm")
        cut = sheet.crop(sheet.getbbox())
        small = cut.resize(
            (max(1, cut.width * 20 // max(cut.size)), max(1, cut.height * 20 // max(cut.size))),
            Image.Resampling.BOX,
        )
        field = Image.new("L", (28, 28), 0)
        field.paste(small, ((28 - small.width) // 2, (28 - small.height) // 2))
        pictures.append(np.asarray(field))
    return np.array(pictures)


def gradients(count: int) -> np.ndarray:
    """Light that falls from one side, with some noise: as photos without an object have it."""
    y, x = np.mgrid[0:28, 0:28] / 27
    slopes = RANDOM.normal(size=(count, 2, 1, 1))
    light = slopes[:, 0] * y + slopes[:, 1] * x + RANDOM.normal(0, 0.02, (count, 28, 28))
    light -= light.min(axis=(1, 2), keepdims=True)
    pictures: np.ndarray = 230 * light / light.max(axis=(1, 2), keepdims=True) + 20
    return pictures


def test_of_digits_that_it_has_not_seen_few_are_unusual(
    of_mnist: Novelty, mnist: SequenceData
) -> None:
    unusual = of_mnist.unusual(mnist.test.x)
    assert unusual.shape == (10_000,)
    assert ((unusual >= 0) & (unusual < 1)).all()
    # By its definition 5 % and 1 % of digits like those of validation. The test split was written
    # by others: 7 % and 2 %.
    assert (unusual > 0.95).mean() < 0.08
    assert (unusual > 0.99).mean() < 0.025


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("noise", 0.99), ("sparse noise", 0.99), ("gradients", 0.98), ("inverted", 0.99),
        ("black", 0.99), ("white", 0.99), ("grey", 0.99), ("divided by 255", 0.99),
        ("waves", 0.99), ("shifted by 4", 0.9), ("shifted by 8", 0.95), ("half the size", 0.9),
        ("letters", 0.8), ("signs", 0.8),
    ],
)  # fmt: skip
def test_other_pictures_are_told_from_digits(
    kind: str, least: float, of_mnist: Novelty, mnist: SequenceData
) -> None:
    digits = mnist.test.x[:300].astype(np.float32)
    small = [Image.fromarray(x).resize((14, 14)) for x in mnist.test.x[:300]]
    t = np.linspace(0, 6, 28)[None, :, None]
    waves = np.sin(t * RANDOM.uniform(0.5, 4, (300, 1, 28)) + RANDOM.uniform(0, 6, (300, 1, 28)))
    others = {
        "noise": RANDOM.integers(0, 256, (300, 28, 28)),
        "sparse noise": 255 * (RANDOM.random((300, 28, 28)) < 0.13),
        "gradients": gradients(300),
        "inverted": 255 - digits,
        "black": np.zeros((3, 28, 28)),
        "white": np.full((3, 28, 28), 255),
        "grey": np.full((3, 28, 28), 128),
        "divided by 255": digits / 255,
        "waves": 127 * waves + 128,
        "shifted by 4": np.roll(digits, (4, -2), (1, 2)),
        "shifted by 8": np.roll(digits, (8, -4), (1, 2)),
        "half the size": np.array([np.pad(np.asarray(picture), 7) for picture in small]),
        "letters": glyphs("ABCDEFGHJKLMNPQRTUVWXYZabdefhkmnpqrtwxyz"),
        "signs": glyphs("#%&@$?+=*<>[]{}~^"),
    }
    usual = of_mnist.unusual(mnist.test.x)
    assert separation(usual, of_mnist.unusual(others[kind])) > least


# --- sequences ---
def waves(examples: int, timesteps: int, seed: int) -> np.ndarray:
    """Two channels of very different size: a wave of 2, 5 or 8 periods, and its speed."""
    random = np.random.default_rng(seed)
    t = np.linspace(0, 2 * np.pi, timesteps)
    phase = random.integers(2, 9, (examples, 1)) * t + random.uniform(0, 6, (examples, 1))
    x = np.stack([np.sin(phase), 1e5 + 500 * np.cos(phase)], axis=-1)
    return (x * random.normal(1, 1e-4, x.shape)).astype(np.float32)


@pytest.mark.parametrize("timesteps", [5, 50, 512, 513, 2000, 20_000])
def test_sequences_of_any_length(timesteps: int) -> None:
    size = 300 if timesteps <= 2000 else 150
    novelty = measure_novelty(
        split(waves(size, timesteps, 0)), split(waves(size, timesteps, 1)), one_unit=False
    )
    usual = waves(100, timesteps, 2)
    false_alarms = (novelty.unusual(usual) > 0.9).mean()
    mean, deviation = usual.mean((0, 1)), usual.std((0, 1))
    assert false_alarms < 0.2  # 10 % expected, of 100
    strange = {
        "noise": RANDOM.normal(mean, deviation, usual.shape),
        "stuck": np.broadcast_to(mean, usual.shape),
        "a channel off": usual * [1, 0],
        "channels swapped": usual[..., ::-1],
        "another unit": usual * [1000, 1],
        "half dead": np.where(np.arange(timesteps)[:, None] < timesteps // 2, usual, mean),
    }
    for kind, x in strange.items():
        found = (novelty.unusual(np.asarray(x, np.float32)) > 0.9).mean()
        # Five steps hold too little to tell noise, or the half of a wave, from a wave.
        if timesteps > 5 or kind not in ("noise", "half dead"):
            assert found > 0.9, kind


def test_a_sequence_is_drawn_out_to_one_length() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    assert at_one_length(x, np.array([4, 2]))[..., 0].tolist() == [[0, 1, 2, 3], [4, 4, 5, 5]]
    assert at_one_length(x, np.array([3, 1]))[..., 0].tolist() == [[0, 0, 1, 2], [4, 4, 4, 4]]
    assert at_one_length(x, None) is x


def test_sequences_of_different_lengths_are_measured_by_their_course() -> None:
    """Half as long is usual, the same wave upside down is not; padding is not looked at."""

    def ramps(examples: int, seed: int, sign: int = 1) -> Split:
        random = np.random.default_rng(seed)
        lengths = random.integers(10, 41, examples)
        x = np.full((examples, 40, 1), np.nan, np.float32)
        for row, length in zip(x, lengths, strict=True):
            row[:length, 0] = sign * np.linspace(-1, 1, length) + random.normal(0, 0.1, length)
        return split(x, lengths)

    novelty = measure_novelty(ramps(300, 0), ramps(300, 1), one_unit=False)

    def alarms(some: Split) -> float:
        share = novelty.unusual(at_one_length(some.x, some.lengths)) > 0.9
        return float(share.mean())

    assert alarms(ramps(200, 2)) < 0.2  # 10 % expected
    assert alarms(ramps(200, 3, sign=-1)) > 0.9


@pytest.mark.parametrize(("timesteps", "features"), [(28, 28), (10_000, 3), (3, 5000), (1, 1)])
def test_it_is_small_whatever_the_sequences(timesteps: int, features: int) -> None:
    x = RANDOM.normal(size=(40, timesteps, features)).astype(np.float32)
    novelty = measure_novelty(split(x[:30]), split(x[30:]), one_unit=False)
    assert len(novelty.centre) <= MOST_NUMBERS
    of_features = novelty.mean.nbytes + novelty.deviation.nbytes
    assert sum(np.asarray(part).nbytes for part in vars(novelty).values()) - of_features < 50_000
    assert np.isfinite(novelty.unusual(x)).all()


def test_few_validation_examples_cannot_prove_much() -> None:
    """Of 9 examples, none of which is as far, no more follows than 1 - 2 / 10."""
    x = RANDOM.normal(size=(60, 20, 2)).astype(np.float32)
    novelty = measure_novelty(split(x[:51]), split(x[51:]), one_unit=False)
    np.testing.assert_allclose(novelty.unusual(x[:1] + 100), 0.8)


@pytest.mark.parametrize("examples", [1, 2, 3])
def test_one_example_is_enough_not_to_fail(examples: int) -> None:
    x = RANDOM.normal(size=(examples, 4, 2)).astype(np.float32)
    assert np.isfinite(measure_novelty(split(x), split(x[:1]), one_unit=False).unusual(x)).all()


def test_a_feature_that_never_changes_counts_once_it_does() -> None:
    x = RANDOM.normal(size=(200, 20, 2)).astype(np.float32)
    x[..., 1] = 20
    novelty = measure_novelty(split(x[:150]), split(x[150:]), one_unit=False)
    other = x[150:].copy()
    other[..., 1] = 300
    assert (novelty.unusual(x[150:]) > 0.9).mean() < 0.2
    assert (novelty.unusual(other) > 0.9).all()


def test_the_same_data_give_the_same_measure(mnist: SequenceData, of_mnist: Novelty) -> None:
    again = measure_novelty(mnist.train, mnist.valid, one_unit=True)
    x = mnist.test.x[:500]
    np.testing.assert_allclose(again.unusual(x), of_mnist.unusual(x), atol=2e-3)
