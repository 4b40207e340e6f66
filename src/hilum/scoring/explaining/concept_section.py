"""Measurements and concepts that answers go with across a cohort: of the region looked at, or shown by examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hilum import errors
from hilum.errors import HilumError, UsageError
from hilum.explanation import answer_maps, concept_tests, evidence_places
from hilum.explanation.case_on_grid import CaseOnGrid, UnfitError
from hilum.explanation.concept_tests import Concept, SeenFeatures, Surrogate
from hilum.explanation.explanation_methods import AUTO, Method
from hilum.lazy import pandas as pd
from hilum.quality import ibsi
from hilum.reading import ReadingOptions, input_cases
from hilum.report import Block, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.report.page_blocks import Link
from hilum.runtime import Model
from hilum.runtime.torch_networks import Differentiable
from hilum.scoring.case_scoring import AuditOutcome
from hilum.scoring.explaining import cohort_explanation
from hilum.scoring.explaining.cohort_explanation import FurtherLook
from hilum.tasks import Task, properties
from hilum.transforms import COLOUR, channel_stack
from hilum.values import Array, BoundingBoxes, Case, Image, Prediction, Problem

CONCEPTS, MEASURED, TITLE = "concepts.csv", "measured", "What the answers go with"
FOLDER, SURROGATE = "folder", "measured"
WHERE_MEASURED, EXAMPLES = "--concepts measured", "Give a folder with one folder per concept"
# Of a map's evidence, the strongest voxels that hold so much are the region that it looks at.
HALF, SHOWN = 0.5, 8
COLUMNS = (
    "target", "concept", "source", "cases", "images", "r2", "r2_low", "r2_high", "share", "direction", "score",
    "low", "high", "agreement", "effect", "p", "p_adjusted",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class AnsweredCohort:
    """Cases and the model that answers them.

    methods:    whose map says what is looked at where neither a mask nor boxes do
    references: {case: the same with what experts marked}
    """

    model: Model
    torch_model: Differentiable | None
    methods: Sequence[Method]
    target: str
    cases: Sequence[Case]
    references: Mapping[str, Case] = field(default_factory=dict)

    def grid(self, case: Case, target: str | None = None) -> CaseOnGrid:
        """The case as the network sees it."""
        return CaseOnGrid.from_case(self.model, case, target or self.common_target, self.torch_model)

    @property
    def target_name(self) -> str:
        """The target in words."""
        return "all" if self.target == AUTO else self.target

    @property
    def common_target(self) -> str:
        """The one target that is asked about in every case: of "auto" what most of them are answered with."""
        if self.target != AUTO or not properties.picks_a_label(self.model.task):
            return self.target
        answered = Counter(target for case in self.cases if (target := self._answer(case)) is not None)
        return answered.most_common(1)[0][0] if answered else self.target

    def _answer(self, case: Case) -> str | None:
        """The answer to a case; None for one that cannot be read, which is reported elsewhere."""
        try:
            return self.grid(case, AUTO).target or AUTO
        except HilumError:
            return None


def explain_concepts(cohort: AnsweredCohort, asked: str, reading: ReadingOptions, *, seed: int) -> FurtherLook:
    """`concepts.csv` and its section; asked: "measured", or a folder with one folder a concept.

    A case that fails is a problem of the result.
    Raises DatasetError for too few cases or images of a concept, UnfitError for a model without a known deepest map.
    """
    fixed = replace(cohort, target=cohort.common_target)
    if asked == MEASURED:
        return _by_measurements(fixed, seed)
    return _by_examples(fixed, Path(asked), reading, seed)


def refuse_concepts(asked: str, model: Model, torch_model: Differentiable | None) -> None:
    """Raises UsageError for concepts that are no folder and for measurements of a model of clips.

    UnfitError where examples need gradients that there are not.
    """
    if asked == MEASURED:
        if model.preprocessing.frames is not None:
            raise UsageError("the model takes clips, and only still images are measured", WHERE_MEASURED, EXAMPLES)
        return
    if not Path(asked).is_dir():
        remedy = "Give a folder with one folder per concept, or measured"
        raise UsageError("is not a folder", f"--concepts {asked}", remedy)
    if torch_model is None:
        raise UnfitError("--concepts", "its backend has no gradients", "Give a run or a package, with --backend torch")


def refuse_unfit_clips(asked: str, model: Model, cases: Sequence[Case]) -> None:
    """Raises UsageError for clips that would be measured or are predicted frame by frame; their headers are read."""
    opened = {case.id: image for case in cases if (image := _first_image(case)) is not None}
    if clips := [name for name, image in opened.items() if image.frames is not None]:
        named = f"{errors.list_phrase(clips)} {'is' if len(clips) == 1 else 'are'}"
        if asked == MEASURED:
            what = "a clip" if len(clips) == 1 else "clips"
            raise UsageError(f"{named} {what}: only still images are measured", WHERE_MEASURED, "Give still images")
        if any(model.goes_by_frame(opened[name]) for name in clips):
            raise UsageError(f"{named} predicted frame by frame", "--concepts", "Give still images")


def _first_image(case: Case) -> Image | None:
    """None of a case whose image cannot be read, which is reported where it is looked at."""
    try:
        return next(iter(case.images.values()), None)
    except HilumError:
        return None


def _by_measurements(cohort: AnsweredCohort, seed: int) -> FurtherLook:
    measured_rows, failed = cohort_explanation.each_case(cohort.cases, partial(_measure, cohort), "measuring")
    rows = [one for one in measured_rows if one is not None]
    table = pd.DataFrame([one.measurements for one in rows])
    named = {str(name): table[name].tolist() for name in table}
    surrogate = concept_tests.additive_surrogate(
        named, [one.answer for one in rows], [one.patient for one in rows], seed=seed
    )
    r2 = surrogate.r2
    lines = [
        {"target": cohort.target_name, "concept": name, "source": SURROGATE, "cases": len(rows)}
        | {"r2": r2.value, "r2_low": r2.low, "r2_high": r2.high, "share": share}
        | {"direction": surrogate.direction[name]}
        for name, share in surrogate.shares.items()
    ]
    return FurtherLook(_audit_section(lines, _section_of_measurements(surrogate, len(rows))), failed)


class _Measured(NamedTuple):
    """Measurements of the region of a case, and how much of the target the model answers."""

    measurements: Mapping[str, float]
    answer: float
    patient: str


def _measure(cohort: AnsweredCohort, case: Case) -> _Measured | None:
    """None of a case whose region is empty."""
    image = channel_stack.stack_images(case.images, case.id)
    channels = _channels(image, cohort.model.preprocessing.channels)
    measured = ibsi.channel_measurements(channels, _region(cohort, case, image), image.geometry.steps)
    return _Measured(measured, _answer(cohort.grid(case)), case.patient) if measured else None


def _channels(image: Image, names: tuple[str, ...]) -> dict[str, Array]:
    """{channel: (*spatial), NaN where nothing was measured} of those that the model takes; "" of a single picture."""
    shown = channel_stack.match_colours(image, names)
    values = np.where(shown.valid.all(axis=0), shown.data, np.nan)
    if shown.channels == COLOUR:
        return {"": values.mean(axis=0)}
    if len(names) == 1:
        return {"": values[0]}
    of_model = [name for name in shown.channels if name in names] or shown.channels
    return {name: values[shown.channels.index(name)] for name in of_model}


def _answer(grid: CaseOnGrid) -> float:
    """The score of the target in the window that says most of it."""
    subjects = grid.subjects(grid.fullest_window())
    return sum(share * float(one.scores(one.image)) for one, share in zip(subjects, grid.shares, strict=True))


def _region(cohort: AnsweredCohort, case: Case, image: Image) -> Array:
    """(*spatial) what experts mark, else what the model marks, else where the map of the first method is strongest.

    Of the target where what is marked has its name, else of anything.
    """
    if case.id in cohort.references:
        marked_region = evidence_places.reference_mask(
            cohort.references[case.id], image, cohort.target, cohort.model.task
        )
        if marked_region is not None:
            return marked_region
    prediction = cohort.model.predict(case)
    for part in (prediction, *prediction.parts.values()):
        if (marked := _answer_region(part, image, cohort.target, cohort.model.task)) is not None and marked.any():
            return marked
    for method in cohort.methods:
        try:
            explanation = answer_maps.explain_case(
                cohort.model, case, method, target=cohort.target, torch_model=cohort.torch_model
            )
            return _strongest(explanation.data)
        except UnfitError:
            continue
    raise UnfitError("--concepts measured", "none of these methods has a map")


def _answer_region(prediction: Prediction, image: Image, target: str, task: Task) -> Array | None:
    name = target.rpartition(":")[2]
    if prediction.data is not None:
        data, values = np.asarray(prediction.data), evidence_places.target_values(target, task, prediction.labels)
        return np.isin(data, values) if values else data != 0
    if (called := prediction.called_boxes) is None:
        return None
    names = {label.name for label in prediction.labels}
    return _in_boxes(called.of_class(name) if name in names else called, image.geometry.shape)


def _in_boxes(boxes: BoundingBoxes, shape: Sequence[int]) -> Array:
    inside = np.zeros(tuple(shape), dtype=bool)
    for low, high in zip(boxes.low, boxes.high, strict=True):
        inside[tuple(slice(max(0, round(a)), max(0, round(b))) for a, b in zip(low, high, strict=True))] = True
    return inside


def _strongest(data: Array) -> Array:
    evidence = np.clip(np.nan_to_num(data), 0, None)
    order = np.argsort(-evidence, axis=None, kind="stable")
    held = np.cumsum(evidence.ravel()[order])
    inside = np.zeros(evidence.size, dtype=bool)
    if held[-1] > 0:
        inside[order[: int(np.searchsorted(held, HALF * held[-1])) + 1]] = True
    return inside.reshape(evidence.shape)


def _by_examples(cohort: AnsweredCohort, folder: Path, reading: ReadingOptions, seed: int) -> FurtherLook:
    inside = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    concepts, failed = dict[str, list[Case]](), list[Problem]()
    for subfolder in inside or [folder]:
        concepts[subfolder.name], unread = input_cases.open_inputs([subfolder], reading, cohort.model)
        failed += unread
        concept_tests.refuse_few_images(subfolder.name, len(concepts[subfolder.name]))

    def looked_at(cases: Sequence[Case], what: str) -> list[SeenFeatures]:
        """The cases as the network sees them; what failed is kept."""
        looks, lost = cohort_explanation.each_case(
            cases, lambda case: concept_tests.network_features(cohort.grid(case)), what
        )
        failed.extend(lost)
        return looks

    subjects = looked_at(cohort.cases, "looking at concepts")
    shown = {
        name: np.array([one.pooled for one in looked_at(cases, f"looking at {name}")])
        for name, cases in concepts.items()
    }
    pool, gradients = np.array([one.pooled for one in subjects]), np.array([one.gradient for one in subjects])
    tested = concept_tests.tcav(shown, pool, gradients, seed=seed)
    lines = [{"target": cohort.target_name, "source": FOLDER, **asdict(one)} for one in tested]
    return FurtherLook(_audit_section(lines, _section_of_concepts(tested)), failed)


def _audit_section(lines: Sequence[object], section: Section) -> AuditOutcome:
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return AuditOutcome({CONCEPTS: table}, sections=[replace(section, files=[Link(CONCEPTS, CONCEPTS)])])


def _section_of_measurements(surrogate: Surrogate, cases: int) -> Section:
    r2 = surrogate.r2
    ends = ""
    if r2.low is not None and r2.high is not None:
        low, high = (wording.number_text(100 * end, unit, places=0) for end, unit in ((r2.low, ""), (r2.high, "%")))
        ends = f" (95 % interval {low} to {high})"
    used = [(name, share) for name, share in surrogate.shares.items() if share > 0]
    verdict = (
        f"A sparse sum of {errors.count_phrase(len(used), 'measurement')} explains "
        f"{100 * max(r2.value, 0):.0f} %{ends} of what the model answers, in patients that did not "
        f"fit it ({errors.count_phrase(cases, 'case')})."
    )
    words = {1: "more", -1: "less", 0: ""}
    rows = [[name, words[surrogate.direction[name]], wording.number_text(share)] for name, share in used[:SHOWN]]
    blocks: list[Block] = [Paragraph(verdict)]
    if rows:
        blocks.append(PageTable(["Measurement (IBSI)", "The more, the", "Share of the sum"], rows))
    return Section(TITLE, blocks)


def _section_of_concepts(concepts: Sequence[Concept]) -> Section:
    named = [one.concept for one in concepts if one.is_found]
    verdict = "The answers are not shown to go with any concept."
    if named:
        verdict = f"The answers go with {errors.list_phrase(named)}."
    rows = [
        [one.concept, *map(wording.number_text, (one.score, one.low, one.high, one.effect, one.p_adjusted))]
        for one in concepts
    ]
    how = (
        "TCAV: the share of cases in which the answer grows along the concept; p against 50 "
        "random concepts, adjusted by Holm."
    )
    columns = ["Concept", "TCAV", "from", "to", "Answer moves by", "p after Holm"]
    return Section(TITLE, [Paragraph(f"{verdict} {how}"), PageTable(columns, rows)])
