"""Images of arrays in memory."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

import hilum
from hilum.errors import GeometryError, UsageError


def test_a_volume_has_the_spacing_the_sides_and_the_modality_that_are_stated():
    array = np.arange(24.0).reshape(2, 3, 4)
    made = hilum.image(array, spacing=np.array([1, 1, 2.5]), orientation="LPS", modality="CT")
    assert (made.spacing, made.geometry.orientation, made.modality) == ((1, 1, 2.5), "LPS", "CT")
    np.testing.assert_array_equal(made.data, array[None])
    assert hilum.image(array, spacing=2).spacing == (2, 2, 2)
    assert hilum.image(array).spacing is None


def test_an_affine_states_place_and_sides():
    affine = np.diag([-1.0, -1, 2, 1])
    affine[:3, 3] = 5, 6, 7
    made = hilum.image(np.zeros((2, 3, 4)), affine=affine)
    assert (made.spacing, made.geometry.orientation) == ((1, 1, 2), "LPS")
    np.testing.assert_array_equal(made.geometry.affine, affine)


def test_the_array_is_copied():
    array = np.zeros((4, 4))
    made = hilum.image(array)
    array[0, 0] = 9
    assert made.data.max() == 0


def test_colours_are_channels_as_in_a_file_and_slices_where_a_size_of_each_axis_is_stated(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "picture.png")
    for given in (pixels, PIL.Image.open(tmp_path / "picture.png")):
        made = hilum.image(given, spacing=(0.2, 0.2))
        np.testing.assert_array_equal(made.data, hilum.read(tmp_path / "picture.png").data)
        assert (made.channels, made.spacing) == (("R", "G", "B"), (0.2, 0.2))
    assert hilum.image(pixels, spacing=(1, 1, 3)).geometry.shape == (8, 9, 3)
    assert hilum.image(np.moveaxis(pixels, -1, 0), channels=["a", "b", "c"]).channels == ("a", "b", "c")


def test_a_tensor_becomes_an_image_and_an_image_in_memory_is_enhanced():
    torch = pytest.importorskip("torch")
    noise = 100 + torch.randn(32, 30, generator=torch.Generator().manual_seed(0))
    made = hilum.image(noise, spacing=0.5)
    [enhanced] = hilum.enhance(made).images.values()
    assert enhanced.data.std() < made.data.std()


@pytest.mark.parametrize(
    ("array", "given", "sentence"),
    [
        ("text", {}, r"^array: is a text, which holds no real numbers"),
        (None, {}, "^array: is None, which holds no real numbers"),
        (np.zeros((2, 2), complex), {}, "^array: is an array of NumPy, which holds no real numbers"),
        ([[1, 2], [3]], {}, r"^array: is no array that NumPy can take over"),
        (np.zeros((2, 2, 2, 2)), {}, r"^array: has the shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 2)), {}, r"^array: has the shape \(0, 2\)"),
        (np.zeros((4, 5, 6)), {"spacing": (1, 2)}, r"^spacing: \(1.0, 2.0\) for 3 axes"),
        (np.zeros((4, 5)), {"spacing": (1, 0)}, r"^spacing: \(1.0, 0.0\) for 2 axes"),
        (np.zeros((4, 5)), {"spacing": 1, "affine": np.eye(3)}, "^affine: is given with spacing"),
        (np.zeros((4, 5, 6)), {"orientation": "RAS"}, "^orientation: is given without spacing"),
        (np.zeros((4, 5, 3)), {"channels": ["r", "g", "b"]}, "^channels: 3 names for 4 along the first axis"),
    ],
)
def test_what_makes_no_image_is_refused_by_its_keyword(array, given, sentence):
    with pytest.raises(UsageError, match=sentence):
        hilum.image(array, **given)


def test_an_affine_that_is_no_grid_is_refused():
    with pytest.raises(GeometryError, match=r"^affine: "):
        hilum.image(np.zeros((4, 5, 6)), affine=[1, 2])


def test_an_image_of_itk_is_refused_because_its_array_has_other_axes():
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5)))
    with pytest.raises(UsageError, match=r"^array: is an image of ITK.*GetArrayFromImage\(image\)\.transpose"):
        hilum.image(image)
    made = hilum.image(sitk.GetArrayFromImage(image).transpose(), spacing=image.GetSpacing())
    assert made.geometry.shape == image.GetSize()
