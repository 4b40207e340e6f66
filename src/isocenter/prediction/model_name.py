"""How results name the model that made them."""

from __future__ import annotations

from isocenter.runtime import Model

# Of a SHA-256, as results tell models apart.
PROGRAM, DIGITS = "isocenter", 16


def algorithm_of(model: Model) -> str:
    """Name of a model in DICOM results: its task and the beginning of its weights' SHA-256, in 64 letters."""
    weights = str(model.record.get("weights_sha256") or "")[:DIGITS]
    return " ".join(filter(None, (f"{PROGRAM} {model.task.name}"[: 63 - DIGITS], weights)))


def model_named(model: Model) -> dict[str, str]:
    """The name and version of a model, and the SHA-256 of its weights: of one without a version, how that begins."""
    weights = str(model.record.get("weights_sha256") or "")
    name = str(model.record.get("name") or f"{PROGRAM} {model.task.name}")
    return {"name": name, "version": str(model.record.get("version") or weights[:DIGITS]), "weights_sha256": weights}
