"""Surfaces of structures: closed triangle meshes in patient mm, and the bytes of STL and OBJ files that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hilum.errors import FormatError
from hilum.files.storage import atomic
from hilum.lazy import ndimage, skimage_measure
from hilum.values import Array, Geometry, Label

# Between outside, 0, and inside, 1. At 0.5 the two diagonals of a checkered face would weigh the same, and the two
# cubes that share it could connect it differently, which leaves a hole.
LEVEL = 0.45
# 3D Slicer takes a mesh for LPS unless its header says otherwise: vtkMRMLModelStorageNode.
SPACE = "SPACE=RAS"
STL_HEADER = 80  # bytes, which must not begin with "solid"
LONGEST_NAME = 24  # bytes of a structure's name in the name of its file
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


@dataclass(frozen=True, eq=False)
class SurfaceMesh:
    """A closed surface; the corners of each triangle go round counter-clockwise as seen from outside.

    points:    (points, 3) mm
    triangles: (triangles, 3) numbers of points
    """

    points: Array
    triangles: Array

    @property
    def volume(self) -> float:
        """Volume that the surface encloses in mm³."""
        return _enclosed_volume(self.points, self.triangles)

    def in_lps(self) -> SurfaceMesh:
        """The same surface with x and y reversed. That is a turn by 180°, so that outside stays outside."""
        return SurfaceMesh(self.points * (-1, -1, 1), self.triangles)


def surfaces_of_structures(
    label_map: Array, labels: Sequence[Label], geometry: Geometry, where: str
) -> Iterator[tuple[Label, SurfaceMesh]]:
    """The surface of each structure that has a voxel, in RAS+ mm.

    label_map: (*spatial) of values that `labels` describe
    Each surface encloses the volume of its voxels, and is closed at the border of the image too.
    Raises FormatError where the image is no volume in mm.
    """
    if not (geometry.is_volume and geometry.physical):
        raise FormatError("a surface in mm needs a volume with a voxel size", where, "Choose another format")
    return _each_surface(np.asarray(label_map), labels, geometry)


def _each_surface(label_map: Array, labels: Sequence[Label], geometry: Geometry) -> Iterator[tuple[Label, SurfaceMesh]]:
    boxes = ndimage.find_objects(label_map.astype(np.uint8) if label_map.dtype == bool else label_map)
    for label in labels:
        box = boxes[label.value - 1] if 0 < label.value <= len(boxes) else None
        if box is not None:
            start = np.array([part.start for part in box])
            yield label, _surface(label_map[box] == label.value, start, geometry)


def _surface(mask: Array, start: Array, geometry: Geometry) -> SurfaceMesh:
    """The surface of a mask whose first voxel has the index `start`."""
    padded = np.pad(mask, 1)
    points, triangles, _, _ = skimage_measure.marching_cubes(padded.astype(np.float32), LEVEL)
    inner, step = _edges(points.astype(np.float64), padded)
    # Half-way between voxels convex corners would be cut off, and a small structure would lose several per cent. Points
    # move along their edges instead until the volume is right; it is a cubic polynomial of how far they move.
    far = np.linspace(0, 1, 4)
    volumes = [abs(_enclosed_volume(inner + share * step, triangles)) for share in far]
    roots = np.roots(np.polyfit(far, np.array(volumes) - np.count_nonzero(mask), 3))
    shares = roots.real[(abs(roots.imag) < 1e-6) & (roots.real > 0) & (roots.real < 1)]
    share = min(shares, key=lambda one: abs(one - 0.5), default=0.5)
    world = geometry.to_world(inner + share * step - 1 + start)
    outwards = _enclosed_volume(world, triangles) > 0
    return SurfaceMesh(world, triangles if outwards else triangles[:, ::-1])


def _edges(points: Array, mask: Array) -> tuple[Array, Array]:
    """The voxel inside, and the step to the voxel outside, of the edge on which each point lies.

    A point within a cube, which some checkered cubes have, stays where it is.
    """
    nearest = np.rint(points)
    off = np.abs(points - nearest) > 0.1
    is_between = off & (np.count_nonzero(off, axis=1) == 1)[:, None]
    lower = np.where(is_between, np.floor(points), nearest).astype(int)
    along = is_between.astype(int)
    inside = mask[tuple(lower.T)][:, None]
    on_edge = is_between.any(axis=1, keepdims=True)
    inner = np.where(on_edge, np.where(inside, lower, lower + along), points)
    return inner, np.where(inside, along, -along)


def _enclosed_volume(points: Array, triangles: Array) -> float:
    """The volume within a surface; negative where its triangles face inwards."""
    first, second, third = (points - points.mean(axis=0))[triangles].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", first, np.cross(second, third)) / 6)


def write_surfaces(label_map: Array, labels: Sequence[Label], geometry: Geometry, path: Path) -> list[Path]:
    """Write the surfaces of structures in RAS+ mm: an OBJ file with all of them, or an STL file for each.

    path: `<name>.obj` or `<name>.stl`; STL knows no names, so that a file is called `<name>.<structure>.stl`
    Without a voxel of any structure there is no file.
    Raises FormatError where the image is no volume in mm.
    """
    surfaces, files = surfaces_of_structures(label_map, labels, geometry, str(path)), list[Path]()
    if path.suffix == ".obj":
        if meshes := list(surfaces):
            atomic.write_text(path, obj_text(meshes))
            files.append(path)
        return files
    taken: set[str] = set()
    for label, surface in surfaces:
        file = path.with_name(f"{path.stem}.{_file_word(label, taken)}{path.suffix}")
        with atomic.write_whole(file) as partial:
            partial.write_bytes(stl_bytes(surface, f"Hilum {SPACE} mm"))
        files.append(file)
    return files


def _file_word(label: Label, taken: set[str]) -> str:
    """A structure's name as part of a file's name, with its value where another structure has the same word.

    It has no dot, so that the files of a case called a and of one called a.b have unlike names.
    """
    plain = re.sub(r"[^\w()+-]+", "_", label.name).strip("_").encode()[:LONGEST_NAME].decode(errors="ignore")
    word = plain or str(label.value)
    while word.lower() in taken:
        word = f"{word}_{label.value}"
    taken.add(word.lower())
    return word


def stl_bytes(surface: SurfaceMesh, comment: str) -> bytes:
    """A binary STL file. comment: for its header, in ASCII"""
    corners = surface.points[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles = np.zeros(len(corners), TRIANGLE)
    triangles["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    triangles["corners"] = corners
    header = comment.encode("ascii")[:STL_HEADER].ljust(STL_HEADER)
    return cast(bytes, header + np.uint32(len(triangles)).astype("<u4").tobytes() + triangles.tobytes())


def obj_text(surfaces: Sequence[tuple[Label, SurfaceMesh]]) -> str:
    """A Wavefront OBJ file with an object of each structure's name."""
    lines, before = [f"# Hilum {SPACE} mm"], 1  # points are counted from 1
    for label, surface in surfaces:
        lines.append(f"o {' '.join(label.name.split()) or label.value}")
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in surface.points.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (surface.triangles + before).tolist()]
        before += len(surface.points)
    return "\n".join(lines) + "\n"
