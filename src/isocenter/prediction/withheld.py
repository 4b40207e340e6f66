"""What becomes of the results of an image that the model refuses."""

from __future__ import annotations

from typing import Any

from isocenter.values import Confidence, Prediction

# Columns of a case's uncertainty, as `Confidence` has them.
UNCERTAINTIES = ("total", "aleatoric", "epistemic")


def withheld(prediction: Prediction) -> Prediction:
    """The prediction without any result: that it was refused, and why."""
    return Prediction(
        prediction.geometry,
        abstained=prediction.abstained,
        labels=prediction.labels,
        notes=prediction.notes,
        confidence=Confidence(gate_p=prediction.confidence.gate_p),
        case=prediction.case,
        task=prediction.task,
    )


def confidence_columns(prediction: Prediction) -> dict[str, Any]:
    """`gate_p` and `abstained` of a row, of a model with a gate, and what is known of its uncertainty."""
    own = prediction.confidence
    gate = {} if own.gate_p is None else {"gate_p": own.gate_p, "abstained": prediction.abstained or ""}
    return {**gate, **{name: value for name in UNCERTAINTIES if (value := getattr(own, name)) is not None}}
