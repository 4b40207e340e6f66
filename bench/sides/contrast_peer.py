"""A registration by a peer with mutual information: PEER KIND FIXED MOVING OUT.npy. Prints its processor seconds.

KIND is rigid, or deformable: a B-spline after an affine map by elastix, SyN by ANTs, each with its own settings.
Run by `bench/contrast.py` in the peer's own environment; writes (3, *spatial) RAS+ mm in the moving image to which each
voxel of the fixed one leads, as it reads images of the moving one's coordinates, OUT.npy.0.nii.gz to .2, through its
transform.
"""

import sys
import time

import numpy as np

# mm of what the moving image does not reach.
NOWHERE = -10000.0


def ants(kind, fixed, moving, written):
    import ants

    first, second = (ants.image_read(path) for path in (fixed, moving))
    name = {"rigid": "Rigid", "deformable": "SyN"}[kind]
    made = ants.registration(first, second, type_of_transform=name, aff_metric="mattes", syn_metric="mattes")
    return [
        ants.apply_transforms(first, ants.image_read(path), made["fwdtransforms"], defaultvalue=NOWHERE).numpy()
        for path in written
    ]


def elastix(kind, fixed, moving, written):
    import itk

    first, second = (itk.imread(path, itk.F) for path in (fixed, moving))
    parameters = itk.ParameterObject.New()
    for name in {"rigid": ("rigid",), "deformable": ("affine", "bspline")}[kind]:
        # Its own metric of a B-spline is mutual information, and a penalty of bending.
        settings = itk.ParameterObject.GetDefaultParameterMap(name)
        if name != "bspline":
            settings["Metric"] = ["AdvancedMattesMutualInformation"]
        parameters.AddParameterMap(settings)
    _, transform = itk.elastix_registration_method(first, second, parameter_object=parameters, log_to_console=False)
    last = transform.GetNumberOfParameterMaps() - 1
    transform.SetParameter(last, "FinalBSplineInterpolationOrder", "1")
    transform.SetParameter(last, "DefaultPixelValue", str(NOWHERE))
    return [itk.array_from_image(itk.transformix_filter(itk.imread(path, itk.F), transform)).T for path in written]


if __name__ == "__main__":
    name, kind, fixed, moving, out = sys.argv[1:]
    written = [f"{out}.{axis}.nii.gz" for axis in range(3)]
    began = time.process_time()
    found = {"ants": ants, "elastix": elastix}[name](kind, fixed, moving, written)
    places = np.stack(found)
    np.save(out, np.where(places < 0.1 * NOWHERE, np.nan, places))
    print(time.process_time() - began)
