"""One pair by a peer with its usual settings: PEER FIXED MOVING MOVING_LABELS OUT.

Run by `bench/registration.py` in the peer's own environment; writes the moving labels on the fixed grid.
"""

import sys


def ants(fixed, moving, labels, out):
    import ants

    first, second, label_map = (ants.image_read(path) for path in (fixed, moving, labels))
    made = ants.registration(first, second, type_of_transform="SyN")
    moved = ants.apply_transforms(first, label_map, made["fwdtransforms"], interpolator="genericLabel")
    ants.image_write(moved, out)


def elastix(fixed, moving, labels, out):
    import itk

    first, second, label_map = (itk.imread(path, itk.F) for path in (fixed, moving, labels))
    parameters = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        parameters.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap(kind))
    _, transform = itk.elastix_registration_method(first, second, parameter_object=parameters, log_to_console=False)
    last = transform.GetNumberOfParameterMaps() - 1
    transform.SetParameter(last, "FinalBSplineInterpolationOrder", "0")
    moved = itk.transformix_filter(label_map, transform, log_to_console=False)
    itk.imwrite(moved, out)


def simpleitk(fixed, moving, labels, out):
    import SimpleITK

    first, second, label_map = (SimpleITK.ReadImage(path, SimpleITK.sitkFloat32) for path in (fixed, moving, labels))
    start = SimpleITK.CenteredTransformInitializer(first, second, SimpleITK.AffineTransform(3))
    affine = _descended(first, second, start, moving_start=None)
    mesh = [max(1, round(size * step / 10)) for size, step in zip(first.GetSize(), first.GetSpacing(), strict=True)]
    curved = SimpleITK.BSplineTransformInitializer(first, mesh)
    bent = _descended(first, second, curved, moving_start=affine)
    whole = SimpleITK.CompositeTransform([affine, bent])
    SimpleITK.WriteImage(
        SimpleITK.Cast(
            SimpleITK.Resample(label_map, first, whole, SimpleITK.sitkNearestNeighbor, 0.0), SimpleITK.sitkUInt8
        ),
        out,
    )


def _descended(fixed, moving, transform, moving_start):
    """As SimpleITK's own examples: mutual information, gradient descent of an affine map, L-BFGS-B of a B-spline."""
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    if moving_start is None:
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=False)
    else:
        method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=100)
        method.SetMovingInitialTransform(moving_start)
        method.SetInitialTransform(transform, inPlace=False)
    return method.Execute(fixed, moving)


def convexadam(fixed, moving, labels, out):
    import nibabel
    import numpy as np
    from convexAdam.convex_adam_MIND import convex_adam_pt
    from scipy.ndimage import map_coordinates, zoom

    first, second, label_map = (nibabel.load(path) for path in (fixed, moving, labels))
    shape = first.shape
    # It wants images of one shape: the moving one is stretched to the fixed one's, as its authors' examples are.
    factors = [new / old for new, old in zip(shape, second.shape, strict=True)]
    moved = zoom(second.get_fdata(), factors, order=1)
    names = zoom(label_map.get_fdata(), factors, order=0)
    shifts = convex_adam_pt(first.get_fdata().astype(np.float32), moved.astype(np.float32))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + np.moveaxis(np.asarray(shifts), -1, 0)
    carried = map_coordinates(names, index, order=0)
    nibabel.save(nibabel.Nifti1Image(carried.astype(np.uint8), first.affine), out)


if __name__ == "__main__":
    {"ants": ants, "elastix": elastix, "simpleitk": simpleitk, "convexadam": convexadam}[sys.argv[1]](*sys.argv[2:])
