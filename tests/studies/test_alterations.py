"""Alterations change pixels as their names say, the same way for the same seed."""

import numpy as np
import pytest

from auditkit.studies.alterations import ALTERATIONS, NOISE_LEVELS, alter, moved
from auditkit.studies.errors import UnknownAlterationError


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def smooth(request: pytest.FixtureRequest) -> np.ndarray:
    """Images that hold a soft gradient, so that resampling has something to keep."""
    y, x = np.mgrid[0:16, 0:24]
    planes = [40 + 5 * x + 3 * y, 160 - 4 * x + 2 * y, 80 + 2 * x + y]
    image = np.stack(planes[: request.param], axis=-1).astype(np.uint8)
    return np.stack([image, image // 2 + 30, 255 - image])


@pytest.mark.parametrize("name", ALTERATIONS)
def test_every_alteration_changes_pixels_alike_for_equal_seeds(
    name: str, smooth: np.ndarray
) -> None:
    before = smooth.copy()
    altered = alter(name, smooth, seed=3)
    assert altered.shape == smooth.shape
    assert altered.dtype == np.uint8
    assert (altered != smooth).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(altered, alter(name, smooth, seed=3))
    np.testing.assert_array_equal(smooth, before)


@pytest.mark.parametrize("name", ["JPEG 75", "resize 2x and back", "resize 3/4 and back"])
def test_what_is_recompressed_or_resized_stays_close(name: str, smooth: np.ndarray) -> None:
    difference = alter(name, smooth, seed=0).astype(int) - smooth
    assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("name", ["shift 1 px", "shift 2 px", "noise 4/255", "colour"])
def test_other_seeds_give_other_chances(name: str, smooth: np.ndarray) -> None:
    many = np.concatenate([smooth] * 5)
    assert (alter(name, many, seed=1) != alter(name, many, seed=2)).any()


def test_a_flip_undoes_itself(smooth: np.ndarray) -> None:
    once = alter("flip", smooth, seed=0)
    np.testing.assert_array_equal(once[0, :, 0], smooth[0, :, -1])
    np.testing.assert_array_equal(alter("flip", once, seed=0), smooth)


def test_a_shift_moves_by_its_distance_and_repeats_the_edge() -> None:
    image = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1)
    down_right = moved(image, np.array([[2, 1]]))[0, :, :, 0]
    np.testing.assert_array_equal(down_right[2:, 1:], image[0, :4, :5, 0])
    np.testing.assert_array_equal(down_right[0], [0, 0, 1, 2, 3, 4])

    dots = np.zeros((64, 9, 9, 1), dtype=np.uint8)
    dots[:, 4, 4] = 255
    for distance in (1, 2):
        altered = alter(f"shift {distance} px", dots, seed=0)[..., 0]
        _, rows, columns = np.nonzero(altered)
        reached = np.maximum(abs(rows - 4), abs(columns - 4))
        assert len(rows) == 64
        assert (reached == distance).all()
        assert len(set(zip(rows, columns, strict=True))) == 8


def test_noise_has_the_announced_strength() -> None:
    grey = np.full((20, 32, 32, 3), 128, dtype=np.uint8)
    noise = alter("noise 4/255", grey, seed=0).astype(float) - 128
    assert noise.std() == pytest.approx(NOISE_LEVELS, rel=0.02)
    assert abs(noise.mean()) < 0.1


def test_colour_of_a_grey_picture_stays_grey() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    altered = alter("colour", grey, seed=0)
    assert (altered == altered[..., :1]).all()


def test_a_crop_keeps_the_middle_and_a_screenshot_catches_the_page() -> None:
    black = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    framed = black.copy()
    framed[:, [0, -1]] = framed[:, :, [0, -1]] = 255
    assert not alter("crop 7/8", framed, seed=0).any()
    caught = alter("screenshot", black, seed=0)
    assert caught[0, 0, 0].min() > 0
    assert not caught[0, 2:-2, 2:-2].any()


def test_no_images_give_no_images() -> None:
    none = np.empty((0, 8, 8, 3), dtype=np.uint8)
    assert {alter(name, none, seed=0).shape for name in ALTERATIONS} == {none.shape}


def test_an_unknown_alteration_is_refused_by_name() -> None:
    with pytest.raises(UnknownAlterationError, match=r"expected one of flip, .*found 'rotate'"):
        alter("rotate", np.zeros((1, 8, 8, 3), dtype=np.uint8), seed=0)
