"""The smallest changes that flip a call, for every case: files, a table, and a strip of the way there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.explanation import counterfactuals
from hilum.explanation.case_on_grid import UnfitError
from hilum.explanation.counterfactuals import Counterfactual, Flip
from hilum.explanation.explanation_methods import METHODS
from hilum.lazy import pandas as pd
from hilum.prediction import result_files
from hilum.report import Block, Figure, Paragraph, Section, display
from hilum.report.figures import sheets
from hilum.report.page_blocks import Gallery, Link
from hilum.runtime import Model
from hilum.runtime.torch_networks import Differentiable
from hilum.scoring.case_scoring import AuditOutcome
from hilum.scoring.explaining import cohort_explanation
from hilum.scoring.explaining.cohort_explanation import DISAGREEMENT, FurtherLook
from hilum.scoring.explaining.concept_section import AnsweredCohort
from hilum.transforms import channel_stack
from hilum.values import Case, Image, Map
from hilum.values.table_cells import TableRow

COUNTERFACTUALS = "counterfactuals.csv"
TITLE = "What would flip the call"
NAME = "counterfactual"
DIFFERENCE = "difference"
IN_IMAGE, ALONG, OF_COVARIATE = "image", "directions", "covariate"
COLUMNS = ("case", "space", "from", "to", "probability_before", "probability_after", "share_changed", "gate_p")
COLUMNS_AFTER = ("flipped", "passes_gate", "change")
MOST_STRIPS = 12


@dataclass(frozen=True, eq=False)
class _Flips:
    """The changes that flip the call of one case; no strips where it has that call already."""

    rows: Sequence[TableRow] = ()
    strips: Sequence[Figure] = ()
    files: Sequence[Path] = ()


def map_kinds(cases: Sequence[Case]) -> list[str]:
    """The names of maps that explanations of these cases have, which end the names of their files."""
    images = dict.fromkeys(name for case in cases for name in case.images)
    kinds = (*METHODS, NAME, DIFFERENCE, f"{NAME}_{ALONG}", f"{DIFFERENCE}_{ALONG}")
    return [f"{kind}{end}" for kind in kinds for end in ("", f"_{DISAGREEMENT}", *(f"_{name}" for name in images))]


def explain_counterfactuals(cohort: AnsweredCohort, asked: str, folder: Path | None) -> FurtherLook:
    """Every case by the smallest change that flips it to `asked`, or to the likeliest other class for "auto".

    folder: for <case>_counterfactual, <case>_difference and the strip <case>_counterfactual.png
    A case that fails is a problem of the result.
    Raises UsageError for a kind of problem that calls nothing, or a name that it does not call.
    """
    torch_model = with_gradients(cohort.model, cohort.torch_model, asked)
    made_rows, failed = cohort_explanation.each_case(
        cohort.cases, partial(_flip, cohort, asked, torch_model, folder), "looking for counterfactuals"
    )
    rows, strips = [row for one in made_rows for row in one.rows], [strip for one in made_rows for strip in one.strips]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *COLUMNS_AFTER])
    section = _section(rows, strips, sum(not one.strips for one in made_rows))
    audited = AuditOutcome({COUNTERFACTUALS: table}, sections=[section])
    return FurtherLook(audited, failed, [path for one in made_rows for path in one.files])


def _flip(cohort: AnsweredCohort, asked: str, torch_model: Differentiable, folder: Path | None, case: Case) -> _Flips:
    """One case in each space; its files are written once all of it is known."""
    prediction = cohort.model.predict(case)
    flip = Flip.from_target(cohort.model.task, asked, prediction)
    if flip.before == flip.after:
        return _Flips()
    arrays = {
        space: counterfactuals.find_counterfactual(
            cohort.model, case, flip, torch_model, prediction=prediction, along=space == ALONG
        )
        for space in (IN_IMAGE, *([ALONG] * (cohort.model.parts.directions is not None)))
    }
    rows = [_row(case, flip, one, space) for space, one in arrays.items()]
    rows += _of_covariates(cohort, case, flip, flip.probability(prediction))
    strips, files = {space: _strip(case, flip, one, space) for space, one in arrays.items()}, list[Path]()
    if folder is not None:
        for space, change in arrays.items():
            files += _write_flips(case, change, strips[space], space, folder)
    return _Flips(rows, list(strips.values()), files)


def with_gradients(model: Model, torch_model: Differentiable | None, asked: str) -> Differentiable:
    """The networks with gradients. Raises UsageError where no case of this model can be flipped to what is asked."""
    Flip.asked_for(model.task, asked)
    counterfactuals.changeable_preprocessing(model)
    if torch_model is None:
        raise UnfitError("--counterfactual", "its backend has no gradients", "Give a run, or --backend torch")
    return torch_model


def _row(case: Case, flip: Flip, flipped: Counterfactual, space: str) -> TableRow:
    figures_of = (flipped.before, flipped.after, flipped.share_changed, flipped.gate_p)
    cells = (case.id, space, flip.before, flip.after, *figures_of)
    return {**dict(zip(COLUMNS, cells, strict=True)), "flipped": flipped.flipped, "passes_gate": flipped.passes}


def _of_covariates(cohort: AnsweredCohort, case: Case, flip: Flip, before: float) -> Iterator[TableRow]:
    """A row for each covariate of which a single change flips the call."""
    for change, answer in counterfactuals.flipping_covariates(cohort.model, case, flip):
        p = answer.confidence.gate_p
        cells = (case.id, OF_COVARIATE, flip.before, flip.after, before, flip.probability(answer), 0.0, p)
        level = None if cohort.model.guard is None else cohort.model.guard.level
        passes = level is None or p is None or p >= level
        yield {**dict(zip(COLUMNS, cells, strict=True)), "flipped": True, "passes_gate": passes, "change": change}


def _strip(case: Case, flip: Flip, flipped: Counterfactual, space: str) -> Figure:
    """The way from the case to its counterfactual, through the slice that changes most, and the change itself."""
    steps = {f"p {p:.2f}{' ' * n}": image for n, (image, p) in enumerate(flipped.path)} or {"unchanged": flipped.image}
    first = next(iter(steps.values()))
    steps = {name: display.match_greys(image, first) for name, image in steps.items()}
    how = ", as training images differ" if space == ALONG else ""
    # Of a finding that is to be absent the probability is that of its absence, as everywhere in the table.
    chance = f"of {flip.name}" if flip.picks else f"that {flip.name} is {flip.after}"
    caption = f"From {flip.before} to {flip.after}: the probability {chance} along the change{how}"
    change = flipped.difference.mean(axis=0)
    if change.any():
        most = float(np.abs(change).max())
        steps["change"] = display.with_window(Image(change[None], flipped.image.geometry), -most, most)
        caption += ", all in the greys of the first; at the right the change: bright where the image becomes brighter, "
        caption += "dark where it becomes darker, grey where it stays"
    caption += "." if flipped.flipped else "; no change that was tried flips the call."
    caption += "" if flipped.passes else " The gate refuses it: the changed image is unlike the training images."
    through = np.abs(change) > 0.5 * np.abs(change).max()
    return sheets.contact_sheet(steps, case.id, caption=caption, columns=6, through=through)


def _write_flips(case: Case, flipped: Counterfactual, strip: Figure, space: str, folder: Path) -> Iterator[Path]:
    """Both maps on the source's grid, of several channels each its own, and the strip."""
    image = channel_stack.stack_images(case.images, case.id)
    end = f"_{ALONG}" if space == ALONG else ""
    names = [""] if len(flipped.difference) == 1 else [f"_{name}" for name in image.channels]
    maps = {}
    for number, name in enumerate(names):
        maps[f"{NAME}{end}{name}"] = Map(np.asarray(flipped.image.data[number], dtype=np.float32))
        maps[f"{DIFFERENCE}{end}{name}"] = Map(np.asarray(flipped.difference[number], dtype=np.float32))
    yield from result_files.write_maps(maps, image, folder, case.id)
    picture = folder / f"{case.id}_{NAME}{end}.png"
    picture.write_bytes(strip.png)
    yield picture


def _section(rows: Sequence[TableRow], strips: Sequence[Figure], same: int) -> Section:
    images = [row for row in rows if row["space"] == IN_IMAGE]
    flipped = [row for row in images if row["flipped"]]
    passing = sum(bool(row["passes_gate"]) for row in flipped)
    verdict = f"A change of the image flips {len(flipped)} of {errors.count_phrase(len(images), 'case')}"
    verdict += f"; the gate takes {passing} of these changed images." if flipped else "."
    verdict += f" {errors.count_phrase(same, 'case')} already have this answer." if same else ""
    if changes := [f"{row['case']}: {row['change']}" for row in rows if row["space"] == OF_COVARIATE]:
        verdict += f" A single covariate flips: {'; '.join(changes[:MOST_STRIPS])}."
    blocks: list[Block] = [Paragraph(verdict), *([Gallery(strips[:MOST_STRIPS])] if strips else [])]
    return Section(TITLE, blocks, [Link(COUNTERFACTUALS, COUNTERFACTUALS)])
