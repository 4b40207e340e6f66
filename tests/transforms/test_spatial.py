"""Images, labels, points and boxes carried through spatial transforms, and their inverses."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from numpy.testing import assert_allclose

from hilum.errors import GeometryError
from hilum.transforms import spatial_transforms
from hilum.values import Affine, Displacement, Geometry, Image, SpatialTransform
from simulated_pairs import blobs, oblique, smooth_field, turn_and_shift
from strategies import geometries

FIXED, MOVING = oblique(), Geometry((22, 20, 24), np.diag([1.2, 1.0, 1.1, 1.0]))
FIELD = smooth_field(FIXED, 3.0)
TURN = turn_and_shift((8, -5, 12), (1, 40, -43), FIXED)
BOTH = SpatialTransform((FIELD, TURN), FIXED, MOVING)


def as_itk(image: Image) -> SimpleITK.Image:
    made = SimpleITK.GetImageFromArray(image.data[0].T.astype(np.float64))
    affine = np.diag([-1, -1, 1, 1]) @ image.geometry.affine
    made.SetSpacing(image.geometry.steps)
    made.SetOrigin(affine[:3, 3].tolist())
    made.SetDirection((affine[:3, :3] / image.geometry.steps).ravel().tolist())
    return made


@pytest.mark.parametrize(
    ("order", "theirs", "within"), [("linear", SimpleITK.sitkLinear, 1e-3), ("cubic", SimpleITK.sitkBSpline, 0.3)]
)
def test_an_image_is_carried_as_simple_itk_resamples_it(order, theirs, within):
    image = blobs(MOVING)
    turn = SpatialTransform((TURN,), FIXED, MOVING)
    sides = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = sides @ TURN.matrix @ sides
    linear = SimpleITK.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    expected = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(as_itk(image), as_itk(blobs(FIXED)), linear, theirs, -999.0)
    ).T
    made = spatial_transforms.carry_image(image, turn, FIXED, order).data[0]
    inside = np.isfinite(made) & (expected != -999.0)
    assert inside.mean() > 0.2
    assert_allclose(made[inside], expected[inside], atol=within)


@given(geometries())
@settings(max_examples=20)
def test_an_affine_and_its_inverse_lead_back_exactly(grid):
    there = SpatialTransform((Affine(grid.affine),))
    points = grid.corners
    assert_allclose(
        spatial_transforms.carry_points(
            spatial_transforms.invert_transform(there), spatial_transforms.carry_points(there, points)
        ),
        points,
        atol=1e-6,
    )


def test_an_inverted_field_leads_back_to_a_hundredth_of_a_millimetre_at_its_voxels():
    field = SpatialTransform((smooth_field(FIXED, 2.0),), FIXED, FIXED)
    back = spatial_transforms.invert_transform(field)
    nodes = FIXED.to_world(np.stack(np.meshgrid(*map(np.arange, FIXED.shape), indexing="ij"), axis=-1))
    assert (
        np.linalg.norm(
            spatial_transforms.carry_points(field, spatial_transforms.carry_points(back, nodes)) - nodes, axis=-1
        ).max()
        < 0.01
    )
    assert np.concatenate([one.ravel() for one in spatial_transforms.inverse_errors(field, back, FIXED)]).mean() < 0.05


def test_a_field_that_folds_has_no_inverse_and_the_place_is_named():
    vectors = np.zeros((3, *FIXED.shape))
    vectors[0, 10, 12, 9] = 20.0
    folded = SpatialTransform((Displacement(vectors, FIXED),))
    assert spatial_transforms.folded_percent(spatial_transforms.jacobian_determinants(folded, FIXED)) > 0
    with pytest.raises(GeometryError, match=r"folds over itself at voxel \((9|10|11), "):
        spatial_transforms.invert_transform(folded)


def test_a_transform_as_one_field_moves_voxels_as_its_parts_do():
    single = SpatialTransform((spatial_transforms.to_single_field(BOTH, FIXED),))
    points = FIXED.to_world([[3.0, 4.0, 5.0], [10.0, 11.0, 12.0]])
    assert_allclose(
        spatial_transforms.carry_points(single, points), spatial_transforms.carry_points(BOTH, points), atol=1e-4
    )
    assert_allclose(spatial_transforms.jacobian_determinants(SpatialTransform((TURN,)), FIXED), 1, atol=1e-6)


def test_transforms_one_after_the_other_are_one_transform():
    whole = spatial_transforms.compose_transforms(SpatialTransform((FIELD,)), SpatialTransform((TURN,)))
    points = FIXED.corners
    assert_allclose(spatial_transforms.carry_points(whole, points), spatial_transforms.carry_points(BOTH, points))


def test_beyond_half_a_voxel_a_field_moves_nothing():
    constant = Displacement(np.full((2, 4, 4), 3.0), Geometry((4, 4), np.eye(3)))
    moved = spatial_transforms.carry_points(SpatialTransform((constant,)), [[-0.4, 2.0], [-0.6, 2.0]])
    assert_allclose(moved, [[2.6, 5.0], [-0.6, 2.0]])


@pytest.mark.parametrize("axes", [2, 3])
def test_label_maps_keep_their_values_and_pictures_go_as_volumes_do(axes):
    grid = Geometry((12,) * axes, np.eye(axes + 1))
    labels = np.zeros(grid.shape, np.int16)
    labels[(slice(3, 6),) * axes], labels[(slice(6, 9),) * axes] = -7, 4000
    shifted = Affine(np.block([[np.eye(axes), np.ones((axes, 1))], [np.zeros((1, axes)), np.eye(1)]]))
    moved = spatial_transforms.carry_labels(labels, grid, SpatialTransform((shifted,)), grid)
    assert (moved[(slice(0, 11),) * axes] == labels[(slice(1, 12),) * axes]).all()
    assert (moved[-1] == 0).all()


def test_two_fields_with_an_affine_between_them_are_one_field_at_its_voxels():
    first, second = smooth_field(FIXED, 2.0), smooth_field(FIXED, 1.5, seed=2)
    turn, shift = turn_and_shift((3, 0, 2), (1, 0, 0), FIXED), turn_and_shift((0, 0, 0), (2, 1, 0), FIXED)
    several = SpatialTransform((shift, first, turn, second, turn))
    one = spatial_transforms.join_fields(several)
    assert [type(part).__name__ for part in one.parts] == ["Affine", "Displacement", "Affine"]
    at = spatial_transforms.carry_points(
        spatial_transforms.invert_transform(SpatialTransform((shift,))),
        FIXED.to_world(np.argwhere(np.ones(FIXED.shape))),
    )
    assert_allclose(spatial_transforms.carry_points(one, at), spatial_transforms.carry_points(several, at), atol=1e-3)
