"""Cases through methods of explanation: a map of each with its row and its picture, and findings over all cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import HilumError, MemoryShortageError, UsageError
from hilum.evaluation import intervals
from hilum.explanation import answer_maps, case_on_grid, evidence_places, faithfulness
from hilum.explanation.answer_maps import Explanation
from hilum.explanation.case_on_grid import WHOLE, CaseOnGrid, UnfitError
from hilum.explanation.evidence_places import SmallMap
from hilum.explanation.explanation_methods import USUAL, Method
from hilum.explanation.faithfulness import FEWEST, TESTED
from hilum.prediction import result_files
from hilum.quality import image_quality
from hilum.report import Figure, progress_tracking
from hilum.report.figures import heat_map
from hilum.runtime import Model, predicted_memory
from hilum.runtime.torch_networks import Differentiable
from hilum.scoring.case_scoring import AuditOutcome
from hilum.scoring.explaining import kept_tests
from hilum.scoring.explaining.kept_tests import MethodTests, Records
from hilum.transforms import channel_stack
from hilum.values import Case, Image, Map, Problem
from hilum.values.explanation_records import MethodRecord, PlaceFinding
from hilum.values.table_cells import PlainCell
from hilum.work_state import log

# Of `explanations.csv`.
COLUMNS = (
    "case", "target", "method", "passed", "deletion", "insertion", "stability", "pointing", "energy", "border_share",
    "seconds",
)  # fmt: skip
DISAGREEMENT = "disagreement"
T = TypeVar("T")
# Seconds of tests after which no further case begins, where nobody said how many: on volumes a case can take minutes.
AT_MOST = 600.0


class ExplanationRow(TypedDict, total=False):
    """A row of `explanations.csv`; area: the share of the image that experts marked."""

    case: str
    target: str
    method: str
    passed: bool | None
    deletion: float | None
    insertion: float | None
    stability: float | None
    pointing: float | None
    energy: float | None
    area: float
    border_share: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class CaseExplanation:
    """The explanation of one case: rows, figures and problems.

    rows:    of `explanations.csv`
    figures: of each method, and of covariates
    details: of single images, and of where members disagree
    covariates: {name: how much lower the score is without its value}
    refused: {method: why it cannot explain this model}
    small:   {method: the map brought down, for what the cohort looks at}
    """

    case: str
    rows: Sequence[ExplanationRow]
    figures: Sequence[Figure]
    files: Sequence[Path]
    details: Sequence[Figure] = ()
    covariates: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    explanations: Sequence[Explanation] = ()
    small: Mapping[str, SmallMap] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Explainer:
    """An explainer of the cases of a cohort: a model, its methods and what is written.

    by_name:     whether a person asked for these methods: one that cannot be is then refused, else left out
    torch_model: the model's networks with gradients; None of a backend without torch
    tested:      what tests found of the methods on this model; one that is not there was not tested
    references:  {case: the same with what experts marked}
    folder:      where maps and pictures are written
    keeps:       whether the maps are kept where they are not written
    """

    model: Model
    methods: Sequence[Method]
    target: str = "auto"
    seconds: float | None = None
    by_name: bool = True
    torch_model: Differentiable | None = None
    tested: MethodTests = field(default_factory=MethodTests)
    references: Mapping[str, Case] = field(default_factory=dict)
    folder: Path | None = None
    keeps: bool = True

    @classmethod
    def from_methods(cls, model: Model, methods: Sequence[Method], *, by_name: bool, **more: Any) -> Explainer:
        """UsageError where a method was asked for by name that needs gradients, and the backend has none.

        And for an ensemble whose members see images on grids of their own.
        """
        case_on_grid.refuse_several_grids(model)
        try:
            return cls(
                model, methods, by_name=by_name, torch_model=Differentiable.from_networks(model.networks), **more
            )
        except UsageError:
            if by_name and any(method.module for method in methods):
                raise
            return cls(model, [method for method in methods if not method.module], by_name=by_name, **more)

    @property
    def believed_methods(self) -> list[Method]:
        """The methods that passed their tests; of none those that were tested; without tests the usual ones."""
        passed = {name: record.get("passed") for name, record in self.tested.records.items()}
        for verdict in ({True}, {None}, {False}):
            if methods := [one for one in self.methods if passed.get(one.name, "untested") in verdict]:
                return methods
        return [one for one in self.methods if one.name in USUAL]

    def __call__(self, case: Case, tell: Callable[[int, int], None] | None = None) -> CaseExplanation:
        """The case by each method.

        tell: is called with how many parts of the work are done, and of how many
        """
        image = channel_stack.stack_images(case.images, case.id)
        model = predicted_memory.fit_batch_to_memory(self.model, image, case.id)
        rows, figures, files = list[ExplanationRow](), list[Figure](), list[Path]()
        details, refused, maps, small = list[Figure](), dict[str, str](), list[Explanation](), dict[str, SmallMap]()
        letters, bars = _letters(image), self._covariates(model, case, image)
        for number, method in enumerate(self.methods):
            of_method = None if tell is None else partial(_tell_of_method, tell, number, len(self.methods))
            try:
                predicted_memory.refuse_explaining(
                    model, image, case.id, method=method.name, for_gradients=method.for_gradients
                )
                explanation = answer_maps.explain_case(
                    model,
                    case,
                    method,
                    target=self.target,
                    seconds=self.seconds,
                    torch_model=self.torch_model,
                    tell=of_method,
                )
                explanation = replace(explanation, covariates=bars)
            except (UnfitError, MemoryShortageError) as error:
                if self.by_name or not (isinstance(error, UnfitError) or method.for_gradients):  # none takes less
                    raise
                refused[method.name] = error.reason if isinstance(error, UnfitError) else error.problem
                continue
            inside = self._reference_region(case, image, explanation.target)
            rows.append(self._row(case, image, explanation, inside))
            pictures = map_pictures(explanation, image, method, inside, failed=rows[-1]["passed"] is False)
            figures.append(pictures[method.name])
            details += list(pictures.values())[1:]
            small[method.name] = SmallMap.from_map(
                case.id, explanation.target, explanation.data, image.geometry.ndim, letters
            )
            if self.folder is not None:
                files += _write_map(explanation, image, case.id, self.folder, pictures)
            elif self.keeps:
                maps.append(explanation)
        if bars:
            figures.append(heat_map.bar_chart(bars, "Covariates", axis="score lost without the value"))
        return CaseExplanation(case.id, rows, figures, files, details, bars, refused, maps, small)

    def _covariates(self, model: Model, case: Case, image: Image) -> dict[str, float]:
        """The contribution of each covariate to the score of this case."""
        if model.goes_by_frame(image) or not model.networks.context.names:
            return {}
        return CaseOnGrid.from_case(model, case, self.target, self.torch_model).covariates()

    def _reference_region(self, case: Case, image: Image, target: str) -> NDArray[np.bool_] | None:
        reference = self.references.get(case.id)
        return None if reference is None else evidence_places.reference_mask(reference, image, target, self.model.task)

    def _row(
        self, case: Case, image: Image, explanation: Explanation, inside: NDArray[np.bool_] | None
    ) -> ExplanationRow:
        """The row of `explanations.csv`, with the share of the image that experts marked (`area`)."""
        record = self.tested.records.get(explanation.method, {})
        measures = self.tested.cases.get((case.id, explanation.method), {})
        row: dict[str, PlainCell] = {
            "case": case.id,
            "target": explanation.target,
            "method": explanation.method,
            "passed": record.get("passed"),
        }
        row |= {name: measures.get(name) for name in ("deletion", "insertion", "stability")}
        row |= evidence_places.map_measures(explanation.data, image.geometry.ndim)
        row |= {} if inside is None else evidence_places.compare_with_region(explanation.data, inside)
        return cast("ExplanationRow", dict.fromkeys(COLUMNS) | row | {"seconds": round(explanation.seconds, 3)})


def _letters(image: Image) -> NDArray[np.bool_] | None:
    """(*spatial) where letters are burned into a picture; None of any other image, and of a picture without."""
    if not image.geometry.is_picture or image.frames is not None:
        return None
    return image_quality.find_letters(np.nan_to_num(image.data.astype(np.float64).mean(axis=0)))


def map_pictures(
    explanation: Explanation, image: Image, method: Method, inside: NDArray[np.bool_] | None, *, failed: bool
) -> dict[str, Figure]:
    """{end of the file's name: picture}: the map first, then that of each image, then where members disagree."""
    target = "the answer as a whole" if explanation.target == WHOLE else explanation.target
    title = f"{method.name}: {target}"
    overlay_on = partial(heat_map.heat_overlay, image, failed=failed, inside=inside)
    words = f"{method.words[0].upper()}{method.words[1:]}"
    words += "" if inside is None else "; outlined what experts marked"
    for_all = f"{words}; all images together, over {image.channels[0]}" if explanation.images else words
    figures = {method.name: overlay_on(explanation.data, title, caption=for_all)}
    for name, data in explanation.images.items():
        if name not in image.channels:
            continue  # the case lacks it
        figures[f"{method.name}_{name}"] = overlay_on(
            data,
            f"{title}, {name}",
            caption=f"{words}; colours are those of all images",
            channel=image.channels.index(name),
            among=list(explanation.images.values()),
        )
    if explanation.disagreement is not None:
        caption = "Standard deviation over the members' maps, in the colours of their mean"
        name = f"{method.name}_{DISAGREEMENT}"
        figures[name] = overlay_on(
            explanation.disagreement, f"{title}, {DISAGREEMENT}", caption=caption, among=[explanation.data]
        )
    return figures


def _write_map(
    explanation: Explanation, image: Image, name: str, folder: Path, pictures: Mapping[str, Figure]
) -> Iterator[Path]:
    """The files of a map: itself, those of single images, the members' disagreement, and a picture of each."""
    maps = {explanation.method: Map(explanation.data)}
    maps |= {f"{explanation.method}_{one}": Map(data) for one, data in explanation.images.items()}
    if explanation.disagreement is not None:
        maps[f"{explanation.method}_{DISAGREEMENT}"] = Map(explanation.disagreement)
    yield from result_files.write_maps(maps, image, folder, name)
    for end, figure in pictures.items():
        picture = folder / f"{name}_{end}.png"
        picture.write_bytes(figure.png)
        yield picture


@dataclass(frozen=True, eq=False)
class FurtherLook:
    """The outcome of a further look at the cases.

    problems: errors are cases that it lacks
    files:    that were written of single cases
    """

    audited: AuditOutcome
    problems: Sequence[Problem] = ()
    files: Sequence[Path] = ()


def _tell_of_method(tell: Callable[[int, int], None], number: int, count: int, done: int, total: int) -> None:
    tell(number * total + done, count * total)


def each_case(
    cases: Sequence[Case],
    made_of: Callable[..., T],
    what: str,
    results: list[T] | None = None,
    *,
    in_parts: bool = False,
) -> tuple[list[T], list[Problem]]:
    """The result of each case, and an error for each case that failed; the rest goes on.

    what: is done, for the bar of progress
    in_parts: whether `made_of` also takes `tell`, a function of how many parts of a case are done and of how many
    results: takes what is made as it comes, for whoever keeps it after Ctrl-C
    Raises UsageError, because what was asked for then suits no case.
    """
    results, failed = list[T]() if results is None else results, list[Problem]()
    with progress_tracking.track_progress(what) as tracker:
        for number, case in enumerate(cases):
            tracker(number, len(cases))
            try:
                more = {"tell": tracker.within(number, len(cases))} if in_parts else {}
                results.append(made_of(case, **more))
            except UsageError:
                raise
            except HilumError as error:
                failed.append(Problem.of_case(case.id, error, case.id))
        tracker(len(cases), len(cases))
    return results, failed


def with_tests(explainer: Explainer, cases: Sequence[Case], path: Path | None, count: int, *, seed: int) -> Explainer:
    """The explainer with what is known of its methods; those that were never tested are, with some of the cases.

    path:   of the model, beside which it is kept
    count: so many cases; 0 tests none
    """
    records, unfit = kept_tests.kept_records(path, explainer.model)
    missing = [method for method in explainer.methods if method.name not in records]
    chosen = kept_tests.spread_cases(cases, count)
    if not missing or len(chosen) < FEWEST:
        return replace(explainer, tested=MethodTests(records))
    # One that could not explain the model before is asked again, for another target; it says no at once.
    if new := [method for method in missing if method.name not in unfit]:
        once = ""
        if kept_tests.is_kept(path, explainer.model) and explainer.torch_model is not None:
            once = ", once for this model"
        many = f"{errors.count_phrase(len(new), 'method')} of explanation on {errors.count_phrase(len(chosen), 'case')}"
        log.info("testing %s%s: this may take minutes", many, once)
    with progress_tracking.track_progress("testing the maps") as tracker:
        tested = kept_tests.assess_methods(
            explainer.model,
            missing,
            chosen,
            explainer.torch_model,
            tracker,
            target=explainer.target,
            seconds=explainer.seconds,
            seed=seed,
            at_most=AT_MOST if count == TESTED else math.inf,
        )
    records |= tested.records
    unfit = {name: why for name, why in {**unfit, **tested.refused}.items() if name not in records}
    kept_tests.keep_records(path, explainer.model, records, unfit)
    return replace(explainer, tested=replace(tested, records=records))


def method_records_with_pointing(
    records: Records, rows: Sequence[ExplanationRow], patients: Mapping[str, str], *, seed: int
) -> dict[str, MethodRecord]:
    """The records with pointing, energy and area over the cases that have references."""
    completed = dict(records)
    for name in dict.fromkeys(row["method"] for row in rows):
        pointed = [row for row in rows if row["method"] == name and row["pointing"] is not None]
        untested = MethodRecord(passed=None, because="not tested")
        for measure in ("pointing", "energy", "area") if pointed else ():
            people = [patients[row["case"]] for row in pointed]
            estimate = faithfulness.plain_estimate(
                intervals.bootstrap([cast("float", row[measure]) for row in pointed], people, seed=seed)
            )
            completed[name] = cast("MethodRecord", {**completed.get(name, untested), measure: estimate})
    return completed


def cohort_findings(explained_cases: Sequence[CaseExplanation], *, seed: int) -> list[PlaceFinding]:
    """The findings of each method over all cases: where its maps hold evidence."""
    names = dict.fromkeys(name for one in explained_cases for name in one.small)
    findings = {
        name: evidence_places.place_findings(
            [one.small[name] for one in explained_cases if name in one.small], seed=seed
        )
        for name in names
    }
    return [{"method": name, **row} for name, rows in findings.items() for row in rows]
