"""What becomes of the results of an image that the model refuses."""

from __future__ import annotations

from typing import Any

from isocenter.values import Confidence, Prediction


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


def gate_columns(prediction: Prediction) -> dict[str, Any]:
    """`gate_p` and `abstained` of a row; nothing of a model without a gate."""
    p = prediction.confidence.gate_p
    return {} if p is None else {"gate_p": p, "abstained": prediction.abstained or ""}
