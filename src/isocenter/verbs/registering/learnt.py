"""`register --model`: the transform between two images by a network that has learnt from pairs."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import UsageError
from isocenter.prediction import loaded_model
from isocenter.reading import pair_of_images
from isocenter.registration import Registration
from isocenter.runtime import Model
from isocenter.tasks import settings_of
from isocenter.transforms import inverted
from isocenter.values import ONTO, Decision, Image

# Figures of a result that is not known.
UNKNOWN = float("nan")


def registered_by(
    model: str | Path | Model, fixed: Image, moving: Image, where: str, *, one_world: bool
) -> Registration:
    """The answer of a trained model for two images, as a registration by optimisation states its own.

    one_world: whether both images are of one patient, whose headers may share a world
    Raises UsageError for a model of another kind, GeometryError for images that cannot lie on one another.
    """
    loaded = loaded_model(model, "auto")
    if not loaded.task.sees_images:
        remedy = "Train one with --task registration, or register without --model"
        raise UsageError(f"is a model for {loaded.task.name}", str(model), remedy)
    case = pair_of_images(fixed, moving, where, one_world=one_world)
    prediction = loaded.predict(case)
    transform, values = prediction.transform, prediction.values or {}
    assert transform is not None  # noqa: S101 - as its task decodes
    own = settings_of(loaded.task)
    decisions = {
        "transform": Decision("deformable", "a trained model answers with a field"),
        "similarity": Decision(own["similarity"], "the model learnt by it; figures are 1 less the loss"),
        "steps": Decision(own["refine"], "of optimisation after the network"),
    }
    before, after = (values.get(one, UNKNOWN) for one in ("similarity_before", "similarity_after"))
    notes = tuple(filter(None, (prediction.abstained, *prediction.notes)))
    guess = case.images["moving"].facts[ONTO]
    return Registration(transform, inverted(transform), guess, decisions, own["similarity"], before, after, notes)
