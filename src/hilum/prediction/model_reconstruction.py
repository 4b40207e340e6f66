"""Images of measurements by a trained network, which sees the channels that it learnt from."""

from __future__ import annotations

import numpy as np

from hilum.errors import UsageError
from hilum.runtime import Model
from hilum.tasks import task_settings
from hilum.transforms.operators import iterative_solvers, reconstruction_methods, simulated_scans
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.transforms.operators.reconstruction_methods import ReconstructedImage
from hilum.values import Array, Case, Decision, Measurement, StatedSettings

ENHANCED = "enhanced"
ERROR = "error"


def reconstruct_by_model(model: Model, measurement: Measurement, name: str) -> ReconstructedImage:
    """The image of a measurement, slice by slice, with its error bars.

    Raises UsageError for a measurement of another operator than the one that taught the model.
    """
    settings = task_settings.settings_of(model.task)
    images = list[Array]()
    errors = list[Array]()
    plain = list[Array]()
    noises = list[float]()
    for number, (operator, data) in enumerate(reconstruction_methods.operators_of_slices(measurement)):
        _refuse_other_operator(operator, settings)
        channels, factor = simulated_scans.network_channels(operator, data)
        scan = operator.acquisition
        image = simulated_scans.network_image(scan, channels)
        prediction = model.predict(Case(f"{measurement.case}_{number + 1}", measurement.case, {"image": image}))
        if prediction.abstained:
            raise UsageError(f"the model abstains: {prediction.abstained}", scan.where, "Choose another --method")
        maps = {kind: np.asarray(one.data, np.float32) / factor for kind, one in prediction.maps.items()}
        images.append(maps[ENHANCED])
        errors += [maps[ERROR]] if ERROR in maps else []
        plain.append(channels[0] / factor)
        noises.append(iterative_solvers.noise_deviation(operator, data))
    bars = np.stack(errors) if errors else None
    noise = float(np.mean(noises))
    return ReconstructedImage(np.stack(images), np.stack(plain), Decision(name, "given"), None, 0, noise, None, bars)


def _refuse_other_operator(operator: LinearOperator, settings: StatedSettings) -> None:
    """UsageError for another kind of scan, number of coils or of views, or a grid that the network cannot halve."""
    scan = operator.acquisition
    learnt = settings["operator"]
    coils = simulated_scans.count_coils(scan)
    count, unit = (coils, "coils") if learnt == "cartesian" else (len(scan.angles_deg), "views")
    if (scan.kind, count) != (learnt, settings[unit]):
        problem = f"is a {scan.kind} scan; the model learnt {learnt} ones of {settings[unit]} {unit}"
        raise UsageError(problem, scan.where, "Choose another --method")
    if any(size % simulated_scans.MULTIPLE for size in scan.shape):
        problem = f"has an image of {scan.shape}, which the network cannot halve twice"
        raise UsageError(problem, scan.where, f"Choose sides that are multiples of {simulated_scans.MULTIPLE}")
