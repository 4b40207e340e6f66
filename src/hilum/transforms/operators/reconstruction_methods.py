"""Ways from a measurement to an image, each with its words, and which one is taken where nobody says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.lazy import torch
from hilum.transforms.operators import cartesian, iterative_solvers, operator_kinds, ray_sums
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.values import Acquisition, Array, Decision, Floats, Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.values.plain_values import PlainValue

AUTO = "auto"
RAYS = ("parallel",)
ALL_KINDS = ("parallel", "cartesian")
# Views a pixel of width from which filtered backprojection has no streaks: Kak and Slaney 1988, section 5.1
ENOUGH_VIEWS = math.pi / 2
# Of the directions that are needed, a share that is nearly all.
ENOUGH_COVERED = 0.95
# Degrees without a view, and times the usual gap between views, from which on a part of half a turn is left out.
LIMITED_DEG = 10.0
LIMITED_TIMES = 4.0
# Share of a measurement beyond its noise that no image of its true geometry leaves unexplained. Of a drawn body on 64
# pixels .005, with views at twice their angle .13, in another order .14, with the centre off by 3 bins .06, by 8 .15.
MOST_UNEXPLAINED = 0.08
# Photons that a ray has at the least, so that its logarithm exists.
FEWEST_PHOTONS = 0.5


@dataclass(frozen=True)
class ReconstructionMethod:
    """One way from a measurement to an image.

    kinds:      of acquisitions that it is for
    iterations: by default; 0 where it is the plain inverse
    has_weight: whether it finds a weight by the noise, where none is given
    """

    words: str
    source: str
    kinds: tuple[str, ...]
    iterations: int = 0
    has_weight: bool = False


METHODS: Mapping[str, ReconstructionMethod] = {
    "fbp": ReconstructionMethod("filtered backprojection", "doi:10.1137/1.9780898719277", RAYS),
    "zero_filled": ReconstructionMethod("zero-filled Fourier transform", "doi:10.1002/mrm.1910160203", ("cartesian",)),
    "cg": ReconstructionMethod("conjugate gradients", "doi:10.6028/jres.049.044", ALL_KINDS, 15),
    "tv": ReconstructionMethod("least total variation", "doi:10.1016/0167-2789(92)90242-F", ALL_KINDS, 100, True),
}


def _solve(
    kind: ReconstructionMethod, operator: LinearOperator, measured: Tensor, weight: float, iterations: int
) -> Tensor:
    """(*domain) of (*codomain)."""
    if not kind.iterations:
        return operator.plain_inverse(measured)
    solve = iterative_solvers.total_variation if kind.has_weight else iterative_solvers.conjugate_gradients
    return solve(operator, measured, weight=weight, iterations=iterations)


@dataclass(frozen=True, eq=False)
class ReconstructedImage:
    """An image made of a measurement.

    data:       (slices, *shape), magnitude of complex ones
    plain:      the same by the plain inverse, where there is another one
    method:     its name, with the reason; `weight` and its reason
    residual:   norm of what the image does not explain, over that of what was measured; None of a magnitude alone
    error:      (slices, *shape) that a model states
    """

    data: Array
    plain: Array | None
    method: Decision
    weight: Decision | None
    iterations: int
    noise: float
    residual: float | None
    error: Array | None = None

    def as_record(self) -> Mapping[str, PlainValue]:
        """Method, weight, iterations, noise and residual."""
        weight = {} if self.weight is None else {"weight": self.weight.value, "weight_because": self.weight.because}
        steps = {"iterations": self.iterations} if self.iterations else {}
        method = {"method": self.method.value, "method_because": self.method.because}
        return {**method, **weight, **steps, "noise": self.noise, "residual": self.residual}


def choose_method(acquisition: Acquisition, method: str = AUTO) -> Decision:
    """The method of this name for an acquisition; UsageError for one of another kind of acquisition."""
    if method == AUTO:
        return _best_method(acquisition)
    if acquisition.kind not in METHODS[method].kinds:
        fitting = ", ".join(name for name, one in METHODS.items() if acquisition.kind in one.kinds)
        raise UsageError(f"{method} is not for {acquisition.kind}", acquisition.where, f"Choose of {fitting}")
    return Decision(method, "given")


def _best_method(scan: Acquisition) -> Decision:
    if not scan.is_ray_sum:
        if scan.mask is None or bool(np.all(scan.mask)):
            return Decision("zero_filled", "k-space is sampled fully")
        return Decision("tv", f"{np.mean(scan.mask):.0%} of k-space is sampled")
    width = max(scan.shape)
    gaps = ray_sums.angular_gaps(np.deg2rad(scan.angles_deg))
    covered = covered_directions(scan)
    views = errors.count_phrase(len(gaps), "view")
    because = f"{views} cover {covered:.0%} of the directions that {width} pixels of width need"
    if _has_gap(gaps):
        because += f", and leave out {np.rad2deg(gaps.max()):.0f} degrees"
    return Decision("fbp" if covered >= ENOUGH_COVERED else "tv", because)


def covered_directions(scan: Acquisition) -> float:
    """Share of the directions of rays that an image of this width needs, and that views stand for.

    Views of one direction stand for it once, and for no gap beside them, however many they are.
    """
    gaps = ray_sums.angular_gaps(np.deg2rad(scan.angles_deg))
    needed = math.pi / (ENOUGH_VIEWS * max(scan.shape))
    return float(np.minimum(gaps, needed).sum() / math.pi)


def _has_gap(gaps: Floats) -> bool:
    """Whether views leave out a part of half a turn, far beyond the gaps between them."""
    usual = float(np.median(gaps[gaps > 0]))
    return bool(np.rad2deg(gaps.max()) >= LIMITED_DEG and gaps.max() > LIMITED_TIMES * usual)


def geometry_warnings(measurement: Measurement, found: ReconstructedImage) -> list[str]:
    """What of rays says that the image is not that of the object: directions left out, and rays that it contradicts."""
    scan = measurement.acquisition
    if not scan.is_ray_sum:
        return []
    gaps = ray_sums.angular_gaps(np.deg2rad(scan.angles_deg))
    warnings = list[str]()
    if _has_gap(gaps):
        left_out = f"the views leave out {np.rad2deg(gaps.max()):.0f} of 180 degrees"
        warnings.append(f"{left_out}: edges along these directions are not in the measurement, by any method")
    is_solved = found.method.value in METHODS and (bool(found.iterations) or covered_directions(scan) >= ENOUGH_COVERED)
    if is_solved and found.residual is not None:
        unexplained = math.sqrt(max(found.residual**2 - _noise_ratio(measurement, found.noise) ** 2, 0.0))
        if unexplained > MOST_UNEXPLAINED:
            warnings.append(
                f"the image contradicts {unexplained:.0%} of the measurement beyond its noise: angles_deg, their "
                "order, bin_mm or the centre of the bins are not those of the scanner, or the object reaches beyond "
                "the image"
            )
    return warnings


def _noise_ratio(measurement: Measurement, noise: float) -> float:
    """The norm of noise of this standard deviation, over that of what was measured; the mean over slices."""
    norms = [(math.sqrt(data.size), float(np.linalg.norm(data))) for _, data in operators_of_slices(measurement)]
    return float(np.mean([noise * root / norm for root, norm in norms if norm > 0] or [0.0]))


def reconstruct_measurement(
    measurement: Measurement, method: str = AUTO, *, weight: float | None = None, iterations: int | None = None
) -> ReconstructedImage:
    """The image of a measurement, slice by slice, of one weight for all of them.

    weight, iterations: of the method; by default the weight that leaves a residual as large as the noise
    """
    chosen = choose_method(measurement.acquisition, method)
    kind = METHODS[chosen.value]
    pairs = list(operators_of_slices(measurement))
    strongest = max(range(len(pairs)), key=lambda one: float(np.linalg.norm(pairs[one][1])))
    noise = iterative_solvers.noise_deviation(*pairs[strongest])
    found = _weight(kind, *pairs[strongest], weight=weight, noise=noise)
    steps = 0 if not kind.iterations else iterations or kind.iterations
    images = list[Array]()
    plain = list[Array]()
    residuals = list[float]()
    with torch.no_grad():
        for operator, data in pairs:
            measured = torch.as_tensor(data)
            image = _solve(kind, operator, measured, found.value if found else 0.0, steps)
            residuals.append(iterative_solvers.residual_ratio(operator, image, measured))
            images.append(_magnitude(image))
            if steps:
                plain.append(_magnitude(operator.plain_inverse(measured)))
    before = np.stack(plain) if plain else None
    return ReconstructedImage(np.stack(images), before, chosen, found, steps, noise, float(np.mean(residuals)))


def operators_of_slices(measurement: Measurement, only: int | None = None) -> Iterator[tuple[LinearOperator, Array]]:
    """Each slice's operator and data in single precision: photons as line integrals, coils with their sensitivities.

    only: the number of the one slice that is wanted
    """
    scan = measurement.acquisition
    data = measurement.data
    if scan.counts:
        data = -np.log(np.maximum(data, FEWEST_PHOTONS) / scan.i0)
    data = data.astype(np.complex64 if scan.kind == "cartesian" else np.float32)
    has_coils = data.ndim == 4
    if scan.mask is not None:
        data = data * scan.mask.astype(np.float32)
    shared = None if has_coils else operator_kinds.operator(scan)
    for number in range(len(data)) if only is None else (only,):
        one = data[number]
        if shared is not None:
            yield shared, one
            continue
        maps = scan.sensitivities
        if maps is None:
            maps = cartesian.estimate_sensitivities(one, scan.mask, scan.where)
        elif maps.ndim == 4:
            maps = maps[number]
        yield operator_kinds.operator(replace(scan, sensitivities=maps)), one


def _magnitude(image: Tensor) -> Array:
    return (image.abs() if image.is_complex() else image).numpy()


def _weight(
    kind: ReconstructionMethod, operator: LinearOperator, data: Array, *, weight: float | None, noise: float
) -> Decision | None:
    """The weight of a method with its reason; None of one without any."""
    if weight is not None:
        return Decision(weight, "given")
    if not kind.has_weight:
        return None
    with torch.no_grad():
        found, ratio = iterative_solvers.find_weight(operator, torch.as_tensor(data), noise)
    words = f"the residual is {ratio:.2f} of the noise, whose standard deviation is {noise:.3g}"
    return Decision(found, words, "doi:10.1007/978-1-4612-5280-1")
