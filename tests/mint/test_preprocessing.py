"""Pixels become inputs in one way only, whatever the order, the threads or the machine."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from auditkit.mint.errors import EmptyCohortError, PixelTypeError
from auditkit.mint.preprocessing import augment, normalisation_of, to_inputs
from schemas import Normalisation

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
IMAGES = torch.arange(4 * 3 * 6 * 5).reshape(4, 3, 6, 5)


def word(flip: int, down: int, right: int, most: int = 2) -> int:
    """Encode a movement of the window; `most` is the largest shift."""
    return flip | ((down + most) << 1) | ((right + most) << 16)


def test_normalisation_is_exact_and_order_free() -> None:
    found = normalisation_of(PIXELS)
    scaled = PIXELS.astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)
    assert normalisation_of(PIXELS[::-1]) == found


def test_inputs_are_normalised() -> None:
    normalisation = normalisation_of(PIXELS)
    inputs = to_inputs(PIXELS, normalisation)
    assert (inputs.shape, inputs.dtype) == ((50, 3, 6, 5), torch.float32)
    expected = (PIXELS[3, 2, 1, 0] / 255 - normalisation.mean[0]) / normalisation.std[0]
    assert inputs[3, 0, 2, 1].item() == pytest.approx(expected, abs=1e-6)
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert torch.equal(to_inputs(PIXELS[7:8], normalisation)[0], inputs[7])


def test_constant_channels_do_not_divide_by_zero() -> None:
    flat = np.full((2, 3, 3, 1), 9, np.uint8)
    assert to_inputs(flat, normalisation_of(flat)).abs().max() < 1e-5


def test_unfit_pixels_are_refused() -> None:
    with pytest.raises(PixelTypeError, match="float64"):
        normalisation_of(PIXELS / 255)
    with pytest.raises(PixelTypeError):
        to_inputs(PIXELS[0], normalisation_of(PIXELS))
    with pytest.raises(PixelTypeError, match="expected 1 channels, found 3"):
        to_inputs(PIXELS, Normalisation(mean=(0.5,), std=(0.5,)))
    with pytest.raises(EmptyCohortError):
        normalisation_of(PIXELS[:0])


def test_each_image_moves_as_its_own_word_says() -> None:
    words = np.array(
        [word(0, 0, 0), word(1, 0, 0), word(0, 2, -1), word(1, -2, 1)], dtype=np.uint32
    )
    moved = augment(IMAGES, words, "flip_shift", 2)
    assert moved.shape == IMAGES.shape
    assert torch.equal(moved[0], IMAGES[0])
    assert torch.equal(moved[1], IMAGES[1].flip(2))
    assert torch.equal(moved[2][:, :4, 1:], IMAGES[2][:, 2:, :4])
    assert torch.equal(moved[2][:, 4], moved[2][:, 2])  # the edge is mirrored
    assert torch.equal(moved[2][:, :, 0], moved[2][:, :, 2])
    assert torch.equal(moved[3].flip(2)[:, 2:, :4], IMAGES[3][:, :4, 1:])


def test_names_decide_what_moves() -> None:
    words = np.array([word(1, 1, 0)] * 4, dtype=np.uint32)
    assert augment(IMAGES, words, "none", 2) is IMAGES
    shifted = augment(IMAGES, words, "shift", 2)
    assert torch.equal(shifted[:, :, :5], IMAGES[:, :, 1:])
    assert torch.equal(augment(IMAGES, words, "flip_shift", 2), shifted.flip(3))


def test_robust_mixes_with_the_mean_of_the_neighbours() -> None:
    shift, side = 1, 3  # vertical values 1, 4, 7 and 10 do not shift, and mix 0 to 3 thirds
    words = np.array([(value << 1) + (1 << 16) for value in (1, 4, 7, 10)], dtype=np.uint32)
    images = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(4))
    mixed = augment(images, words, "robust", shift)
    mirrored = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    mean = functional.avg_pool2d(mirrored, side, stride=1)
    for row, share in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        expected = images[row] + share * (mean[row] - images[row])
        assert torch.allclose(mixed[row], expected, atol=1e-6)


def test_shifts_are_evenly_spread() -> None:
    images = torch.zeros(5000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    words = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32)
    moved = augment(images, words, "shift", 2)
    counts = moved.sum(dim=(0, 1))[2:7, 2:7]
    assert counts.sum() == 5000
    assert 130 < counts.min() <= counts.max() < 270


def test_unfit_words_and_shifts_are_refused() -> None:
    with pytest.raises(PixelTypeError, match="one word per image"):
        augment(IMAGES, np.zeros(3, np.uint32), "shift", 1)
    with pytest.raises(PixelTypeError, match="smaller than the image"):
        augment(IMAGES, np.zeros(4, np.uint32), "shift", 5)
