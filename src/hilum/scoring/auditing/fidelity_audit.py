"""What an enhanced image lost and invented: spheres put in before the damage, and what a further model sees in it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.evaluation import ALL, Table, case_tables, inserted_spheres
from hilum.evaluation.inserted_spheres import CONTRASTS, DIAMETERS, RECOVERY, RECOVERY_METRICS, InsertedSphere
from hilum.evaluation.metric import DOWNSTREAM
from hilum.evaluation.significance import paired_tests
from hilum.evaluation.significance.paired_tests import ComparedFigure
from hilum.lazy import pandas as pd
from hilum.prediction import predictors
from hilum.report import Paragraph, Section, progress_tracking, wording
from hilum.report import Table as PageTable
from hilum.runtime import Model
from hilum.scoring import case_scoring, model_comparison
from hilum.scoring.case_scoring import AuditInput, AuditOutcome, ScoredCases
from hilum.tasks import Task, properties
from hilum.transforms import random_draws, resampling
from hilum.transforms.corruptions import REMAKE
from hilum.values import Array, Case, Floats, Image, Prediction, Row
from hilum.values.table_cells import PlainCell
from hilum.values.voxel_images import SCALE, UNKNOWN_TARGET

SPHERES, SEEN, TITLE = "recovery.csv", "downstream.csv", "What was lost"
COLUMNS = ("case", "patient", "diameter", "contrast", "inserted", "found")
# Patients of whom one case gets spheres, as each costs two predictions; and what a size keeps that is not called lost.
MOST, LOST = 20, 0.5
# The images that a further model sees, by the end of its metric's name.
SIDES = {"_input": "input", "": "result", "_reference": "reference"}

# Of results of which nobody knows what they should be.
UNPROVEN = (
    "No clean image is known, so that nothing here proves the quality of the results: look at what changed, and at "
    "what is kept of spheres that were put into the noisy images."
)


def image_reference(task: Task, case: Case) -> Image | None:
    """The image that a result should be, of a kind of problem that answers with one in the unit of its input."""
    has_unit = any(head.holds_intensities and head.of_input for head in task.heads.values())
    kind = next((one for one in sorted(task.needs) if one in case.references), None)
    return case.references[kind] if has_unit and kind is not None else None


def with_recovery(audit: AuditInput) -> ScoredCases:
    """The figures, with the recovery of spheres of a case of each patient; as they are where results are no images."""
    rows, problems = list[dict[str, PlainCell]](), list[str]()
    scored = {str(case) for case in audit.scored.table["case"]}
    first = {case.patient: case for case in reversed(audit.cases) if case.id in scored}
    cases = [case for case in reversed(first.values()) if image_reference(audit.predictor.task, case) is not None]
    with progress_tracking.track_progress("measuring what is kept") as tracker:
        for case in tracker.over(cases[:MOST]):
            try:
                rows += _sphere_rows(audit, case)
            except HilumError as error:
                problems.append(f"{case.id}: no spheres: {error.problem}.")
    if not rows:
        return audit.scored.with_audit(AuditOutcome(notes=problems)) if problems else audit.scored
    spheres = pd.DataFrame(rows)
    figures = pd.DataFrame(list(_case_rows(spheres)))
    units = {one.name: one.unit for one in RECOVERY_METRICS if one.name in figures}
    summary = case_tables.mean_rows(figures, units, seed=case_tables.resampling_of_table(figures, audit.seed))
    if not audit.patients_known:
        summary = [replace(row, estimate=case_scoring.named_by_case(row.estimate)) for row in summary]
    notes = [*_losses(summary), *problems]
    if any(UNKNOWN_TARGET in case.references[kind].facts for case in cases[:1] for kind in audit.predictor.task.needs):
        notes.insert(0, UNPROVEN)
    outcome = AuditOutcome({SPHERES: spheres}, sections=[_section(spheres)], notes=notes)
    return audit.scored.with_audit(outcome, summary)


def _sphere_rows(audit: AuditInput, case: Case) -> Iterator[dict[str, PlainCell]]:
    """A row a sphere: what was put in, and what is found of it."""
    task = audit.predictor.task
    reference = image_reference(task, case)
    assert reference is not None  # noqa: S101 - of such cases alone
    rng = random_draws.sample_generator(audit.seed, 0, zlib.crc32(case.id.encode()), len(DIAMETERS))
    grid, inside = reference.geometry, np.broadcast_to(reference.valid, reference.shape)[0]
    inside = inside & np.isfinite(reference.data[0])
    spheres = inserted_spheres.choose_spheres(reference.data[0], grid, inside, rng)
    results = [
        _first_channel(task, audit.predictor.predict(one)) for one in (case, with_spheres(case, reference, spheres))
    ]
    without, changed = results
    if without is None or changed is None or not without.shape == changed.shape == grid.shape:
        return
    for sphere, found in zip(spheres, inserted_spheres.contrasts_found(changed, without, spheres, grid), strict=True):
        row = (case.id, case.patient, sphere.size, sphere.share, sphere.contrast, found)
        yield dict(zip(COLUMNS, row, strict=True))


def with_spheres(case: Case, reference: Image, spheres: Sequence[InsertedSphere]) -> Case:
    """The case whose images show the spheres: made anew of the changed reference, or with the same added to them.

    Raises DatasetError where an image does not have the grid of the reference.
    """

    grid, (first, *others) = reference.geometry, case.images
    added = inserted_spheres.insert_spheres(np.zeros(grid.shape), spheres, grid)
    image = case.images[first]
    if (remake := image.facts.get(REMAKE)) is not None:
        changed = remake(_add(reference, added), reference)
    elif image.geometry.shape != grid.shape:
        raise DatasetError("it has another grid than its target", case.id, "Give pairs on one grid")
    else:
        changed = _add(image, _seen_coarsely(added, image.facts[SCALE]) if SCALE in image.facts else added)
    return replace(case, images={first: changed, **{name: case.images[name] for name in others}})


def _add(image: Image, added: Floats) -> Image:
    """The image with more in its first channel."""
    data = image.data.astype(np.float32)
    data[0] += added
    return image.with_pixels(data)


def _seen_coarsely(added: Floats, scale: Sequence[int]) -> Floats:
    """What an image of voxels that are so many times as long shows of it, read on the fine grid again."""
    split = added.reshape([part for size, by in zip(added.shape, scale, strict=True) for part in (size // by, by)])
    coarse = split.mean(axis=tuple(range(1, split.ndim, 2)))
    return cast("Floats", np.asarray(resampling.resample(coarse[None].astype(np.float32), added.shape, "cubic"))[0])


def _first_channel(task: Task, prediction: Prediction) -> Array | None:
    """(*spatial) the first channel of the image that a result is; None where there is no answer."""
    image = prediction.maps.get(task.own_maps[0]) if task.own_maps else None
    if image is None:
        return None
    data = np.asarray(image.data)
    return data[0] if data.ndim > prediction.geometry.ndim else data


def _case_rows(spheres: Table) -> Iterator[dict[str, PlainCell]]:
    """A row a case: the recovery of all its spheres, and of those of each size."""
    for (case, patient), own in spheres.groupby(["case", "patient"], sort=False):
        sizes = {f"{RECOVERY}_{size:g}": part for size, part in own.groupby("diameter")}
        slopes = {
            name: inserted_spheres.recovery_slope(part["inserted"], part["found"])
            for name, part in {RECOVERY: own, **sizes}.items()
        }
        yield {"case": str(case), "patient": str(patient), "label": ALL, **slopes}


def _section(spheres: Table) -> Section:
    """How the spheres were put in, and the mean share that is found, by size and contrast."""
    people = errors.cases_of_patients(spheres["case"].nunique(), spheres["patient"].nunique())
    how = (
        f"Spheres were put into the clean images of {people} before these were damaged, or into both images of a pair. "
        "Found is their contrast in the difference of the results with and without them, as a share of what was put in."
    )
    shares = (spheres["found"] / spheres["inserted"]).groupby([spheres["diameter"], spheres["contrast"]]).mean()
    lines = [
        [f"{size:g} mm", *(wording.number_text(shares.get((size, one), np.nan)) for one in CONTRASTS)]
        for size in sorted(DIAMETERS)
    ]
    columns = ["diameter", *(f"contrast {100 * one:g} % of the range" for one in CONTRASTS)]
    return Section(TITLE, [Paragraph(how), PageTable(columns, lines, "In voxels where these are longer, or unknown.")])


def _losses(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence on each size of which less than half is kept, by its whole interval."""
    words = {one.name: one.words for one in RECOVERY_METRICS}
    for row in rows:
        if row.metric != RECOVERY and row.estimate.high is not None and row.estimate.high < LOST:
            yield f"Structures are lost. {words[row.metric]}: {wording.number_text(row.estimate.value)}."


def load_downstream(model: str | Path | Model, task: Task, cases: Sequence[Case]) -> Model:
    """The model that looks at results; UsageError where results are no images, or no case has what it is scored by."""
    if not any(head.holds_intensities for head in task.heads.values()):
        raise UsageError(f"{task.name} answers with no image", "--downstream", "Leave it out")
    loaded = predictors.load_model(model, "auto")
    if not any(properties.can_learn_from(loaded.task, set(case.references)) for case in cases):
        problem = f"no case has references for {loaded.task.name}, by which the model is scored"
        raise UsageError(problem, str(model), "Give cases with them, as further columns of dataset.csv")
    return loaded


def with_downstream(audit: AuditInput) -> ScoredCases:
    """The figures, with those of a fixed model on the inputs, the results and the references of the same cases."""
    if audit.options.downstream is None:
        return audit.scored
    model = load_downstream(audit.options.downstream, audit.predictor.task, audit.cases)
    rows, problems = {side: list[dict[str, PlainCell]]() for side in SIDES}, list[str]()
    cases = [one for one in audit.cases if properties.can_learn_from(model.task, set(one.references))]
    with progress_tracking.track_progress("scoring what a further model sees") as tracker:
        for case in tracker.over(cases):
            try:
                seen = {side: _score(model, case, image) for side, image in _sides(audit, case).items()}
                for side, own in seen.items():
                    rows[side] += own
            except HilumError as error:
                problems.append(f"{case.id}: not seen by the further model: {error.problem}.")
    tables = {side: case_tables.case_table(own) for side, own in rows.items() if own}
    if not tables:
        return audit.scored.with_audit(AuditOutcome(notes=problems))
    figures, _ = paired_tests.compare_figures(tables, [model.task.summary] * len(tables), seed=audit.seed)
    primary = str(model.record.get("primary", figures[0].metric))
    shown = [one for one in figures if (one.metric, one.label) == (primary, ALL)] or figures[:1]
    summary = [
        Row(f"{DOWNSTREAM}{one.metric}{side}", one.label, replace(estimate, draws=None))
        for one in shown
        for side, estimate in zip(tables, one.estimates, strict=True)
    ]
    table = pd.concat([own.assign(image=SIDES[side]) for side, own in tables.items()])
    sections = [_downstream_section(model, one) for one in shown]
    outcome = AuditOutcome({SEEN: table}, sections=sections, notes=problems)
    return audit.scored.with_audit(outcome, summary)


def _sides(audit: AuditInput, case: Case) -> Mapping[str, Image]:
    """The images of a case that the further model sees, by the end of its metric's name, the input first."""
    task = audit.predictor.task
    reference = case.references[next(one for one in sorted(task.needs) if one in case.references)]
    made = audit.predictor.predict(case).maps.get(task.own_maps[0])
    if made is None:
        raise DatasetError("it has no result", case.id, "See its own problem")
    data = np.asarray(made.data).reshape(-1, *reference.geometry.shape)
    return {"_input": next(iter(case.images.values())), "": reference.with_pixels(data), "_reference": reference}


def _score(model: Model, case: Case, image: Image) -> list[dict[str, PlainCell]]:
    """The rows of a case with this image alone."""
    shown = replace(case, images={"image": image})
    return case_scoring.case_table_rows(model.predict(shown), shown, model.task, "test", None)


def _downstream_section(model: Model, figure: ComparedFigure) -> Section:
    """The figure on inputs, results and references, and the paired difference from that on inputs."""
    words = model.task.metrics.metric_named(figure.metric).words
    signs = ["", *map(model_comparison.signed_estimate, figure.differences)]
    lines = [list(one) for one in zip(SIDES.values(), figure.estimates, signs, strict=True)]
    how = f"A fixed model for {model.task.name} saw the input, the result and the reference of each case."
    columns = ["image", words, "paired difference from the input"]
    return Section("What a further model sees", [Paragraph(how), PageTable(columns, lines)])
