"""Points through a DICOM registration as pydicomRT reads it: FILE POINTS.npy OUT.npy, all in LPS mm.

Run by `bench/registration_known.py` in pydicomRT's environment; SimpleITK moves the points.
"""

import sys

import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicomrt.reg.parser import get_deformable_registrations, get_spatial_registrations


def affine(matrix):
    """A matrix of 16 numbers as a transform of SimpleITK."""
    square = np.array(matrix, dtype=float).reshape(4, 4)
    made = SimpleITK.AffineTransform(3)
    made.SetMatrix(square[:3, :3].ravel().tolist())
    made.SetTranslation(square[:3, 3].tolist())
    return made


def transform_of(dataset):
    """From the fixed image to the moving one."""
    found = get_deformable_registrations(dataset)
    if not found:
        [(fixed, each)] = get_spatial_registrations(dataset).items()
        [matrix] = [one for moving, one in each.items() if moving != fixed]
        return affine(np.linalg.inv(np.array(matrix).reshape(4, 4)))
    [one] = found
    grid = one["DeformableRegistrationGrid"]
    field = SimpleITK.GetImageFromArray(grid["VectorGridData"].astype(np.float64), isVector=True)
    columns = np.array(grid["ImageOrientationPatient"], dtype=float).reshape(2, 3)
    field.SetOrigin([float(place) for place in grid["ImagePositionPatient"]])
    field.SetSpacing([float(step) for step in grid["GridResolution"]])
    field.SetDirection(np.stack([*columns, np.cross(*columns)], axis=1).ravel().tolist())
    parts = [affine(one[f"{when}DeformationMatrixRegistration"]) for when in ("Pre", "Post")]
    # SimpleITK applies the last one first.
    return SimpleITK.CompositeTransform([parts[1], SimpleITK.DisplacementFieldTransform(field), parts[0]])


def main(file, points, out):
    moves = transform_of(dcmread(file))
    np.save(out, [moves.TransformPoint(point) for point in np.load(points).tolist()])


if __name__ == "__main__":
    main(*sys.argv[1:])
