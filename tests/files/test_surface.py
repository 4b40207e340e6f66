"""Surfaces are closed, face outwards, enclose what their voxels do, and lie where these lie."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from hilum.errors import FormatError
from hilum.files import surface_mesh
from hilum.files.surface_mesh import SurfaceMesh
from hilum.values import Geometry, Label

LABELS = (Label(1, "liver, left"), Label(3, "Liver left"), Label(9, "not there"))
# Left-handed, and turned in all axes.
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
HANDED = np.sign(np.linalg.det(TURN))
PLACES = [np.diag([0.7, 1.3, 2.5, 1]), np.eye(4), np.eye(4)]
PLACES[1][:3, :3], PLACES[1][:3, 3] = TURN * (0.7, 1.3, -2.5 * HANDED), (100, -200, 50)
PLACES[2][:3, :3] = [[-1, 0, 0], [0, 1, 0.3], [0, 0, 2]]  # a tilted gantry


def surface_of(mask: Any, affine: Any) -> SurfaceMesh:
    [(_, made)] = surface_mesh.surfaces_of_structures(mask, LABELS[:1], Geometry(mask.shape, affine), "here")
    return made


def open_edges(surface: SurfaceMesh) -> int:
    """Edges that two triangles do not share, each in its own direction."""
    edges = Counter(tuple(edge) for i, j in ((0, 1), (1, 2), (2, 0)) for edge in surface.triangles[:, [i, j]].tolist())
    return sum(count != 1 or edges[edge[::-1]] != 1 for edge, count in edges.items())


@given(arrays(np.bool_, st.tuples(*[st.integers(1, 5)] * 3)).filter(np.any), st.sampled_from(PLACES))
def test_any_mask_has_a_closed_surface_that_faces_outwards_and_encloses_its_volume(mask: Any, affine: Any):
    made = surface_of(mask, affine)
    assert open_edges(made) == 0
    assert_allclose(made.volume, mask.sum() * abs(np.linalg.det(affine)), rtol=1e-6)


@pytest.mark.parametrize("affine", PLACES)
def test_the_surface_of_a_ball_lies_around_its_voxels(affine: Any):
    mask = (np.sum((np.indices((15, 15, 15)) - 7) ** 2, axis=0) <= 25).astype(np.uint8)
    made, geometry = surface_of(mask, affine), Geometry(mask.shape, affine)
    away = np.linalg.norm(geometry.to_index(made.points) - 7, axis=1)
    assert away.min() > 4.5
    assert away.max() < 6
    assert_allclose(made.points.mean(axis=0), geometry.to_world(np.full(3, 7)), atol=0.05)


def test_files_hold_the_surface_of_each_structure_that_is_there(tmp_path: Path):
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[:2], mask[4:, 1:3, 2] = 1, 3
    geometry = Geometry(mask.shape, PLACES[1])
    files = surface_mesh.write_surfaces(mask, LABELS, geometry, tmp_path / "a.b.stl")
    assert [path.name for path in files] == ["a.b.liver_left.stl", "a.b.Liver_left_3.stl"]
    for path, (_, made) in zip(files, surface_mesh.surfaces_of_structures(mask, LABELS, geometry, "here"), strict=True):
        data = path.read_bytes()
        assert b"SPACE=RAS" in data[:80]
        assert struct.unpack_from("<I", data, 80) == (len(made.triangles),) == ((len(data) - 84) // 50,)
        corners = np.array([struct.unpack_from("<9f", data, 96 + 50 * n) for n in range(len(made.triangles))])
        assert_allclose(corners.reshape(-1, 3, 3), made.points[made.triangles], atol=1e-4)
    [path] = surface_mesh.write_surfaces(mask, LABELS, geometry, tmp_path / "a.obj")
    lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [rest for key, rest in lines if key == "o"] == ["liver, left", "Liver left"]
    points = np.array([rest.split() for key, rest in lines if key == "v"], float)
    triangles = np.array([rest.split() for key, rest in lines if key == "f"], int) - 1
    assert_allclose(SurfaceMesh(points, triangles).volume, np.count_nonzero(mask) * geometry.voxel_volume, rtol=1e-3)
    assert surface_mesh.write_surfaces(np.zeros_like(mask), LABELS, geometry, tmp_path / "none.stl") == []


def test_a_picture_has_no_surface(tmp_path: Path):
    with pytest.raises(FormatError, match="needs a volume"):
        surface_mesh.write_surfaces(np.ones((3, 3), np.uint8), LABELS, Geometry((3, 3), np.eye(3)), tmp_path / "a.stl")
