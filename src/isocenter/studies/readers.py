"""The size of a study in which several readers read every case by two modalities, from a pilot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.errors import UsageError
from isocenter.evaluation import ReaderVariances
from isocenter.lazy import special, stats
from isocenter.studies.design import Design, no_effect
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats


def pilot_inputs(pilot: ReaderVariances) -> dict[str, float]:
    """The inputs that a pilot gives.

    The mean square of readers by modalities holds the chance of cases too, which shrinks with their number.
    """
    between = max(pilot.between, 0.0)
    return {
        "interaction": max(pilot.interaction - pilot.own + between, 0.0),
        "own": max(pilot.own, between),
        "between": between,
        "pilot_cases": pilot.cases,
    }


def _variances(inputs: Inputs, cases: float) -> tuple[float, float, float]:
    """Mean square of readers by modalities, Var less Cov1 and Cov2 less Cov3, with so many cases."""
    scale = inputs["pilot_cases"] / cases
    own, between = inputs["own"] * scale, inputs["between"] * scale
    return inputs["interaction"] + own - between, own, between


def _power(inputs: Inputs, n: float) -> float:
    """Power by the noncentral t distribution with Hillis' degrees of freedom."""
    readers = inputs["readers"]
    square, _, between = _variances(inputs, n)
    total = square + readers * between
    error = (2 / readers * total) ** 0.5
    if not square > 0:
        return float(special.ndtr(abs(inputs["difference"]) / error - stats.norm.isf(inputs["alpha"] / 2)))
    free = total**2 / (square**2 / (readers - 1))
    return float(stats.nct.sf(stats.t.isf(inputs["alpha"] / 2, free), free, abs(inputs["difference"]) / error))


def _refuse(inputs: Inputs) -> None:
    if inputs["readers"] < 2:
        raise UsageError("one reader does not show how readers differ", "--set readers", "Give 2 or more")
    if inputs["difference"] == 0:
        raise no_effect("no difference")
    if inputs["own"] < inputs["between"]:
        problem = "own is below between: a reader's difference varies less than what two readers share"
        raise UsageError(problem, "--set own", "Give own, Var less Cov1, at least as large as between, Cov2 less Cov3")
    if not inputs["own"] + inputs["interaction"] > 0:
        raise UsageError("no variance at all", "--set own", "Give the variances of a pilot in which readers differ")


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """Readers' differences by the model of Obuchowski and Rockette, tested, as the z of the same p-value."""
    readers, shown = inputs["readers"], []
    for n in sizes:
        square, _, between = _variances(inputs, n)
        shared = np.sqrt(2 * between) * random.standard_normal((draws, 1))
        apart = abs(inputs["difference"]) + shared + np.sqrt(2 * square) * random.standard_normal((draws, readers))
        seen = apart.var(axis=1, ddof=1) / 2
        total = seen + readers * between
        free = total**2 / (seen**2 / (readers - 1))
        chance = stats.t.sf(apart.mean(axis=1) / np.sqrt(2 / readers * total), free)
        shown.append(-special.ndtri(np.clip(chance, 1e-300, 1.0)))
    return np.stack(shown, axis=1)


MRMC = Design(
    "mrmc",
    {
        "difference": Input("number", "the difference of the modalities' mean AUROCs"),
        "readers": Input("count", "readers, each of whom reads every case by both modalities", needed=True),
        "interaction": Input("nonnegative", "variance of readers by modalities, without that of cases", needed=True),
        "own": Input("nonnegative", "Var less Cov1 of the pilot's AUROCs", needed=True),
        "between": Input("nonnegative", "Cov2 less Cov3 of the pilot's AUROCs", needed=True),
        "pilot_cases": Input("count", "cases of the pilot", needed=True),
    },
    "F test of Obuchowski and Rockette with Hillis' degrees of freedom, readers and cases random; variances of cases "
    "are the pilot's, times its cases over n",
    "Hillis, Obuchowski and Berbaum, Acad Radiol 2011, doi:10.1016/j.acra.2010.09.007",
    _power,
    _refuse,
    effect=("difference", lambda inputs: (0.0, 0.5)),
    simulation=_simulated,
    is_clustered=False,
)
