"""The identity of a model: a digest of all that its answers rest on, so that another digest is another model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hilum.runtime.model_assembly import Model

# What a record states of answers; names, figures and the machine of the training change none.
OF_ANSWERS = ("weights_sha256", "description_sha256", "codes", "measures")


def model_digest(model: Model) -> str:
    """SHA-256 of a model's weights and settings, of its parts with their arrays, and of the models that it is made of.

    What changes an answer changes it: labels, axes, activation, covariates, calibration, gate, codes.
    """
    text = json.dumps(_identity(model), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def identity_facts(model: Model) -> dict[str, str]:
    """The SHA-256 of a model for a page, and that of its weights, which other models may share."""
    weights = str(model.record.get("weights_sha256") or "not recorded")
    return {"model (SHA-256)": model.sha256, "its weights (SHA-256)": weights}


def _identity(model: Model) -> Mapping[str, object]:
    stated = model.settings
    activation = model.record.get("activation")
    # How many windows are computed at once follows from the memory of a machine.
    windows = {key: value for key, value in stated["inference"].items() if key != "batch"}
    return {
        "task": stated["task"],
        "preprocessing": stated["preprocessing"],
        "inference": windows,
        "networks": [stated["network"], *model.networks.unlike],
        "record": {key: value for key, value in model.record.items() if key in OF_ANSWERS and value},
        "activation": None if activation is None else activation["value"],
        "parts": model.parts.settings,
        "first": None if model.first is None else _identity(model.first),
        "members": [_identity(member) for member in model.members],
        "shares": model.shares or model.networks.shares,
    }
