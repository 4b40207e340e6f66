"""The results of an image that the model refuses."""

from __future__ import annotations

from dataclasses import replace

from hilum.runtime import Model
from hilum.values import Case, Confidence, Image, Prediction, Problem
from hilum.values.table_cells import PlainCell

# Columns of a case's uncertainty, as `Confidence` has them.
UNCERTAINTIES = ("total", "aleatoric", "epistemic")


def withhold(prediction: Prediction) -> Prediction:
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


def answer_anyway(prediction: Prediction) -> Prediction:
    """The prediction with its answer whatever the image is like: why there should be none is a note; so of frames."""
    frames = tuple(map(answer_anyway, prediction.frames))
    if prediction.abstained is None:
        return replace(prediction, frames=frames)
    note = f"the result is not about the image: {prediction.abstained}"
    return replace(prediction, frames=frames, abstained=None, notes=(*prediction.notes, note))


def refused_by_header(model: Model, case: Case, image: Image) -> Prediction | None:
    """The prediction without any result of a case that the gate refuses for its header or covariates, else None.

    Nothing was computed for it: an image of another kind may be so large that its windows take minutes.
    """
    guard = model.guard
    if guard is None:
        return None
    bare = Prediction(
        image.geometry,
        labels=model.task.labels,
        confidence=Confidence(gate=model.gate.unfitted_kind),
        case=case.id,
        task=model.task.name,
    )
    far = guard.refuse_covariates(bare, model.far_covariates(case.covariates))
    if far.abstained is not None:
        return far
    verdict = guard.refused_by_header(image, case.covariates)
    if verdict is None:
        return None
    p, reason = verdict
    joint = p * (image.frames or 1) if model.goes_by_frame(image) else p  # as of a clip whose frames are judged
    if joint >= guard.level:
        return None
    return replace(bare, abstained=reason, confidence=replace(bare.confidence, gate_p=joint))


def confidence_columns(prediction: Prediction, between: str = "_") -> dict[str, PlainCell]:
    """`gate_p` and `abstained` of a row, of a model with a gate, and what is known of its uncertainty.

    A model without a fitted gate says so in each row, in `gate`, and abstains from an image of one value.
    between: the name of a part and that of its column, of a task that is made of tasks
    """
    whole_confidence = prediction.confidence
    gate: dict[str, PlainCell] = {} if whole_confidence.gate_p is None else {"gate_p": whole_confidence.gate_p}
    if whole_confidence.gate:
        gate["gate"] = whole_confidence.gate
    if "gate_p" in gate or prediction.abstained is not None:
        gate |= {"abstained": prediction.abstained or ""}
    confidences = {
        "": whole_confidence,
        **{f"{name}{between}": part.confidence for name, part in prediction.parts.items()},
    }
    return gate | {
        f"{part}{name}": value
        for part, each in confidences.items()
        for name in UNCERTAINTIES
        if (value := getattr(each, name)) is not None
    }


def reader_warnings(prediction: Prediction, case: Case) -> list[Problem]:
    """Warnings that a reader of a result has to know."""
    noted = [Problem.warning(f"{case.id}: {note}", (case.id,)) for note in prediction.notes]
    if prediction.abstained is None:
        return noted
    remedy = "Look at the image and at what is stated of its patient; --abstain mark gives its results all the same"
    return [Problem.warning(f"{case.id}: refused: {prediction.abstained}", (case.id,), remedy=remedy), *noted]
