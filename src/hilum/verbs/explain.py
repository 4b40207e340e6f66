"""`explain`: what a model's answers rest on, as maps on each source's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from hilum import errors, keywords, work_state
from hilum.errors import DatasetError, UsageError
from hilum.explanation import case_on_grid, explanation_methods
from hilum.explanation.answer_maps import Explanation
from hilum.explanation.evidence_places import PLACED
from hilum.explanation.explanation_methods import ALL, AUTO
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.models import ExplainOptions
from hilum.prediction import predictors, result_files
from hilum.reading import ReadingOptions, dataset_reading, input_cases, verb_results
from hilum.report import InNotebook
from hilum.runtime import Model, ModelRequest, model_identity, record_files
from hilum.scoring.explaining import cohort_explanation, concept_section, counterfactual_section, explanation_report
from hilum.scoring.explaining.cohort_explanation import COLUMNS, CaseExplanation, Explainer, FurtherLook
from hilum.scoring.explaining.concept_section import AnsweredCohort
from hilum.values import Case, Dataset, PlainValue, Problem, plain_values
from hilum.values.explanation_records import EXPLANATIONS_SCHEMA, ExplanationsRecord, MethodRecord, PlaceFinding
from hilum.work_state import log

MARKS = ("explanations.csv", "explanations.json")


@dataclass(frozen=True, eq=False)
class ExplanationResult(InNotebook):
    """Maps by case and method, and what tests say of the methods.

    table:    a row a case and method, as in `explanations.csv`
    maps:     {(case, method): Explanation}; empty where they were written, so that a cohort of any size fits
    methods:  {method: {passed, because, ...}} of those that were tested
    refused:  {method: why it cannot explain this model}
    problems: errors are cases without a map, or which a further look lacks; warnings are files that were left out
    tables:   {file name: what further looks found}, such as concepts.csv
    covariates: {case: {name: how much lower the score is without its value}}, of networks that get some
    stopped:  Ctrl-C, where it ended the work before the last case
    unfinished_training: how far the training of the model came, where that was stopped
    sha256:   of the model
    """

    table: pd.DataFrame
    maps: Mapping[tuple[str, str], Explanation]
    methods: Mapping[str, MethodRecord]
    refused: Mapping[str, str]
    problems: Sequence[Problem] = ()
    files: Sequence[Path] = ()
    out: Path | None = None
    findings: Sequence[PlaceFinding] = field(default_factory=list)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    covariates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stopped: KeyboardInterrupt | None = None
    unfinished_training: str = ""
    sha256: str = ""

    @property
    def failures(self) -> list[Problem]:
        """An error for each case that could not be explained completely."""
        return verb_results.failures_among(self.problems)

    def as_record(self) -> ExplanationsRecord:
        """The record for `--json` and `explanations.json`."""
        record = {
            "schema": EXPLANATIONS_SCHEMA,
            "version": 1,
            "sha256": self.sha256,
            "methods": {name: dict(one) for name, one in self.methods.items()},
            "refused": dict(self.refused),
            "findings": [dict(one) for one in self.findings],
            "covariates": {case: dict(each) for case, each in self.covariates.items()},
            "failed": verb_results.failed_rows(self.failures),
            "files": [str(path) for path in self.files],
            "unfinished_training": self.unfinished_training,
            "rows": self.table.to_dict("records"),
        }
        return cast("ExplanationsRecord", plain_values.as_json(record))

    def __repr__(self) -> str:
        used = list(dict.fromkeys(self.table["method"])) if len(self.table) else []
        lines = [*filter(None, [self.unfinished_training])]
        lines += [f"{errors.count_phrase(self.table['case'].nunique(), 'case')} explained by {', '.join(used)}"]
        lines += [
            explanation_report.verdict_sentence(self.methods),
            *filter(None, [explanation_report.findings_sentence(self.findings)]),
        ]
        lines += [f"{name}: {one['because']}" for name, one in self.methods.items()]
        lines += [f"{name} cannot be: {reason}" for name, reason in self.refused.items()]
        lines += [f"{problem.severity}: {problem.what}. {problem.remedy}" for problem in self.problems]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@keywords.takes(ExplainOptions)
def explain(options: ExplainOptions) -> ExplanationResult:
    """Map what the model's answer to every input rests on, by one method or several.

    method:  names, as "gradcam,occlusion" or a list; "all" takes each that the model can have, "auto" those that
             pass their tests on this model, or without tests those of `USUAL`
    target:  what is explained: a class, finding, structure, measured value, "risk", "box 1", or "part" and
             "part:target" of several tasks; "auto" is what the model answers
    out:     a folder for the maps <case>_<method>.nii.gz (.tiff of pictures) on the source's grid, their pictures,
             explanations.csv, explanations.json and report.html
    tests:   so many of the cases test methods that were never tested on this model, from 5 on; what they find is kept
             beside the model. 0 tests none; of the usual 20 none begins after ten minutes once 5 are done
    concepts: "measured", or a folder with one folder of images a concept: what the answers go with, in concepts.csv
    counterfactual: class or finding that a smallest change of each case is to be called, "auto" for the likeliest other
             class: <case>_counterfactual, <case>_difference, and counterfactuals.csv
    A case that fails is reported and the rest goes on, in further looks too; DatasetError where every one fails. After
    Ctrl-C the cases that were done by then are kept in `out`, without further looks.
    Raises UsageError for an unknown method or target, and where a method that was named cannot explain the model.
    """
    reading, methods = options.reading, explanation_methods.named_methods(options.method)
    inputs = keywords.as_tuple(options.inputs)
    if not inputs:
        raise UsageError("nothing to explain", "explain", "Give files or folders after the model")
    folder = Path(options.out) if options.out is not None else None
    if folder is not None:
        verb_results.refuse_taken(folder, options.overwrite, MARKS)
    loaded = predictors.load_model(
        options.model, options.device, fold=options.fold, threads=options.threads, backend=options.backend
    )
    loaded = replace(loaded, request=ModelRequest(allow_large=reading.allow_large))
    explainer = Explainer.from_methods(
        loaded, methods, by_name=options.method not in (AUTO, ALL), target=options.target, seconds=options.seconds
    )
    _refuse_what_no_case_has(explainer, options)
    opened, problems = input_cases.open_inputs(inputs, reading, loaded)
    with_covariates, notes = input_cases.with_given_covariates(opened, options.covariates, loaded)
    cases = result_files.with_unique_names(with_covariates, counterfactual_section.map_kinds(opened))
    problems = [*problems, *notes]
    if options.concepts is not None:
        concept_section.refuse_unfit_clips(str(options.concepts), loaded, cases)
    explainer = replace(explainer, references=_references(options.references, reading, loaded, cases))
    explainer = cohort_explanation.with_tests(
        explainer, cases, dataset_reading.path_of_data(options.model), options.tests, seed=options.seed
    )
    explainer = replace(explainer, methods=explainer.believed_methods) if options.method == AUTO else explainer
    cohort = AnsweredCohort(
        loaded, explainer.torch_model, explainer.methods, options.target, cases, explainer.references
    )
    looks = (
        []
        if options.concepts is None
        else [concept_section.explain_concepts(cohort, str(options.concepts), reading, seed=options.seed)]
    )
    with ExitStack() as kept:
        with (
            nullcontext() if folder is None else verb_results.result_folder(folder, options.overwrite, MARKS) as partial
        ):
            problems = [*problems, *(problem for one in looks for problem in one.problems)]
            result, made = _explain(replace(explainer, folder=partial), cases, problems, options.seed)
            if result.stopped is not None:
                kept.enter_context(work_state.finish_despite_interrupt())
            elif options.counterfactual is not None:
                mapped = {one.case for one in made}
                flipping = replace(cohort, cases=[case for case in cases if case.id in mapped])
                looks.append(counterfactual_section.explain_counterfactuals(flipping, options.counterfactual, partial))
            result = _with_looks(result, looks)
            if folder is None or partial is None:
                return result
            result = replace(result, files=[folder / path.name for path in result.files], out=folder)
            facts: dict[str, PlainValue] = {
                **model_identity.identity_facts(loaded),
                "target": options.target,
                "seed": options.seed,
            }
            _write_records(result, made, looks, facts, partial)
        if result.stopped is not None:
            log.warning("%s explained before the stop: %s", errors.count_phrase(len(made), "case"), folder)
            raise result.stopped
    return result


def _refuse_what_no_case_has(explainer: Explainer, options: ExplainOptions) -> None:
    """Refuse, before any case is read, what suits no case."""
    case_on_grid.refuse_unknown_target(explainer.model.task, options.target)
    if options.counterfactual is not None:
        counterfactual_section.with_gradients(explainer.model, explainer.torch_model, options.counterfactual)
    if options.concepts is not None:
        concept_section.refuse_concepts(str(options.concepts), explainer.model, explainer.torch_model)


def _with_looks(result: ExplanationResult, looks: Sequence[FurtherLook]) -> ExplanationResult:
    """The result with what further looks found, the files that they wrote, and the cases that they lack."""
    return replace(
        result,
        tables={name: table for one in looks for name, table in one.audited.tables.items()},
        files=[*result.files, *(path for one in looks for path in one.files)],
        problems=list(dict.fromkeys([*result.problems, *(problem for one in looks for problem in one.problems)])),
    )


def _write_records(
    result: ExplanationResult,
    made: Sequence[CaseExplanation],
    looks: Sequence[FurtherLook],
    facts: Mapping[str, PlainValue],
    folder: Path,
) -> None:
    """All but the maps: the table, the record, what further looks found, and the page; facts: for its foot."""
    for looked in looks:
        looked.audited.write(folder)
    csv_text.write_table(result.table, folder / MARKS[0])
    # A folder may be moved: its record names what lies in it.
    record: ExplanationsRecord = {**result.as_record(), "files": [path.name for path in result.files]}
    record_files.write_json(folder / MARKS[1], EXPLANATIONS_SCHEMA, record)
    sections = [section for one in looks for section in one.audited.sections]
    page = explanation_report.explanation_page(made, result.methods, result.refused, result.findings, facts, sections)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _references(
    given: str | Path | Dataset | None, reading: ReadingOptions, model: Model, cases: Sequence[Case]
) -> dict[str, Case]:
    """{case: the same with what experts marked}; DatasetError where no case has any."""
    if given is None:
        return {}
    opened = list(dataset_reading.open_dataset(given, reading))
    named = result_files.with_unique_names(opened, counterfactual_section.map_kinds(opened))
    marked = {case.id: case for case in named if set(PLACED) & set(case.references)}
    references = {case.id: marked[case.id] for case in cases if case.id in marked}
    if not references:
        remedy = "Give a data set of images with masks or boxes, with the cases' names"
        raise DatasetError("no case of these has a mask or boxes", f"--references {given}", remedy)
    return references


def _explain(
    explainer: Explainer, cases: Sequence[Case], problems: Sequence[Problem], seed: int
) -> tuple[ExplanationResult, list[CaseExplanation]]:
    """Every case by every method; what failed is named, and the rest goes on."""
    made, lost = list[CaseExplanation](), list[Problem]()
    stopped: KeyboardInterrupt | None = None
    try:
        _, lost = cohort_explanation.each_case(cases, explainer, "explaining", made, in_parts=True)
    except KeyboardInterrupt as stop:
        if not made or explainer.folder is None:
            raise
        stopped = stop  # what is done is kept, whole
        whole = {path for one in made for path in one.files}
        for path in filter(Path.is_file, set(explainer.folder.iterdir()) - whole):
            path.unlink()
    # A further look may have failed for the same reason before.
    failed = list(dict.fromkeys([*problems, *lost]))
    if not made:
        raise verb_results.no_result_error("explain", "explained", failed)
    rows = [row for one in made for row in one.rows]
    patients = {case.id: case.patient for case in cases}
    result = ExplanationResult(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        {(one.case, explanation.method): explanation for one in made for explanation in one.explanations},
        cohort_explanation.method_records_with_pointing(explainer.tested.records, rows, patients, seed=seed),
        {**explainer.tested.refused, **{name: why for one in made for name, why in one.refused.items()}},
        failed,
        [path for one in made for path in one.files],
        findings=cohort_explanation.cohort_findings(made, seed=seed),
        covariates={one.case: one.covariates for one in made if one.covariates},
        stopped=stopped,
        unfinished_training=explainer.model.unfinished_training,
        sha256=explainer.model.sha256,
    )
    return result, made
