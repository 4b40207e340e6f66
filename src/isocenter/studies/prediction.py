"""The size of a data set to develop a prediction model for a yes or no."""

from __future__ import annotations

import math

from isocenter.errors import UsageError
from isocenter.studies.design import Design
from isocenter.studies.inputs import Input, Inputs

# Of the overall risk, and between R² as it seems and as it is.
PRECISION = 0.05
OPTIMISM = 0.05
Z = 1.959964


def _largest(inputs: Inputs) -> float:
    """The largest R² of Cox and Snell that a model can have at this prevalence."""
    share = inputs["prevalence"]
    null = share * math.log(share) + (1 - share) * math.log(1 - share)
    return 1 - math.exp(2 * null)


def _number(inputs: Inputs) -> float:
    """The largest of three sizes: of the shrinkage, of the optimism in R², and of the precision of the overall risk."""
    r2, parameters, share = inputs["r2"], inputs["parameters"], inputs["prevalence"]
    shrinkages = inputs["shrinkage"], r2 / (r2 + OPTIMISM * _largest(inputs))
    of_shrinkage = (parameters / ((one - 1) * math.log(1 - r2 / one)) for one in shrinkages)
    return max(*of_shrinkage, (Z / PRECISION) ** 2 * share * (1 - share))


def _refuse(inputs: Inputs) -> None:
    largest = _largest(inputs)
    if not inputs["r2"] < min(largest, inputs["shrinkage"]):
        problem = f"r2 is {inputs['r2']:g}, and at this prevalence and shrinkage it is below "
        raise UsageError(
            f"{problem}{min(largest, inputs['shrinkage']):.3f}", "--set r2", "Give R² as Cox and Snell define it"
        )


def _power(inputs: Inputs, n: float) -> float:
    raise UsageError("prediction-model has no power", "--set", "Leave out n, power and looks")


PREDICTION_MODEL = Design(
    "prediction-model",
    {
        "r2": Input("fraction", "the R² of Cox and Snell that the model is expected to have", needed=True),
        "parameters": Input("count", "parameters that are fitted", needed=True),
        "prevalence": Input("fraction", "share of participants with the outcome", needed=True),
        "shrinkage": Input("fraction", "shrinkage of the parameters that is accepted", 0.9),
    },
    "the largest n of three: for the shrinkage, for an optimism of 0.05 in R², for the overall risk to 0.05",
    "Riley et al., BMJ 2020, doi:10.1136/bmj.m441",
    _power,
    _refuse,
    number=_number,
    events=lambda inputs: float(inputs["prevalence"]),
    is_clustered=False,
)
