"""`calibrate`: what a site's own labelled cases say about a model's probabilities, kept with the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum import errors, keywords
from hilum.belief.operating_points import UNKEPT
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.options.models import CalibrateOptions
from hilum.reading import dataset_reading, verb_results
from hilum.report import wording
from hilum.runs import gate
from hilum.runs.run_folder import MARKS as RUN_MARKS
from hilum.runs.run_folder import MOST, ValidationImages
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model, ModelRequest, model_assembly, model_files, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.foreign.detect import CALIBRATED, CalibratedFacts
from hilum.runtime.package import backends, certification, package_contents, package_writing
from hilum.runtime.package.backend_certificate import Certificate
from hilum.runtime.package.package_contents import PACKAGED
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.scoring import case_selection, data_record, evaluation_notes, model_verdict
from hilum.scoring.explaining import kept_tests
from hilum.tasks import Task, fitting, properties, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.values import Case, Dataset, Decision, plan_decisions, record_schema
from hilum.values.record_schema import RecordHead, RecordSchema, StatedDecision
from hilum.verbs import package
from hilum.verbs.package import MARKS

NO_TEST = "what calibrates a model cannot test it"
SILENT = "No calibrating case has a reference of "
# Why thresholds of sets are not set any more.
NOT_SET = "the cases that calibrated the model could not set it"
UNCHECKED = (
    "Which cases trained it is not known, so that none of those that calibrated it could be refused as one of them."
)


class CalibrationRecord(RecordHead):
    """What cases have decided of a model; unkept: rules that no threshold keeps, left_out: cases that it has seen."""

    out: str
    cases: int
    patients: int | None
    left_out: int
    decisions: dict[str, StatedDecision]
    unkept: list[str]
    trained_known: bool


CALIBRATION_SCHEMA = RecordSchema("hilum.calibrate", CalibrationRecord)


@dataclass(frozen=True)
class CalibrationResult:
    """Place of the calibrated model, and what the cases decided; prints both.

    cases, patients: how many decided; None where nobody knows whose the cases are
    left_out:        cases of the set's own test part, which decided nothing
    unkept:          sentences on a rule that a person chose and the cases were too few for, and on what else they lack
    trained_known:   whether the model's own training cases are known, so that they were refused here
    certificate:     which backends agree with torch; None where none was asked for
    """

    out: Path
    cases: int
    patients: int | None
    decisions: Mapping[str, Decision]
    certificate: Certificate | None = None
    left_out: int = 0
    unkept: tuple[str, ...] = ()
    trained_known: bool = True

    def as_record(self) -> CalibrationRecord:
        """Record for `--json`."""
        return CALIBRATION_SCHEMA.record_of(self)

    def __repr__(self) -> str:
        lines = [str(self.out), f"decided by {errors.cases_of_patients(self.cases, self.patients)}"]
        if self.left_out:
            lines.append(f"warning: {_left_out(self.left_out)}")
        unchecked = () if self.trained_known else (UNCHECKED,)
        lines += [f"warning: {sentence}" for sentence in (*self.unkept, *unchecked)]
        lines += [f"{name}: {wording.setting_text(one.value)} ({one.because})" for name, one in self.decisions.items()]
        return "\n".join([*lines, *([] if self.certificate is None else self.certificate.lines)])


@keywords.takes(CalibrateOptions)
def calibrate(options: CalibrateOptions) -> CalibrationResult:
    """Find a model's calibration and thresholds anew on labelled cases that it has not seen, and keep them with it.

    model:    a run, also one of `train --all`, a package, or a model of another program
    data:     labelled cases of the model's kind; none with the same content may have trained, selected or tested it,
              and a set's own test part is left for tests. A part called calibration alone sets the thresholds of sets
              and intervals, which are approximate without one
    out:      a package: a folder, or a zip where it ends so. A MONAI bundle or an ONNX file, which cannot become one,
              stays as it is in a folder with `calibrated.json`, which every verb takes as the model
    Rules that a person chose before the training (`task.operating_point`, `task.calibration_method`) hold on.
    Raises UsageError where cases have had a part in the model or can decide nothing of it, DatasetError where they are
    not of its kind.
    """
    out = options.out
    source, out = Path(options.model), Path(out)
    verb_results.refuse_missing(source)
    zipped, marks = package.is_zip(out), CALIBRATED if (out / CALIBRATED[0]).is_file() else MARKS
    verb_results.refuse_taken(out, options.overwrite, () if zipped else marks)
    backends.refuse_unknown_backends(options.backends or (), "--backends")
    reading = options.reading
    loaded = replace(
        model_files.load(source, "cpu", threads=options.threads), request=ModelRequest(allow_large=reading.allow_large)
    )
    loaded = evaluation_notes.with_positive(loaded, options.positive, str(source))
    as_it_is = _stays_as_it_is(source, loaded, out, for_packages=zipped or bool(options.backends))
    evidence = _without_boundless(_evidence(source, loaded), loaded.task)
    known = dataset_reading.open_labelled(options.data, reading, loaded.task)
    dataset, hashes = _unseen(known, evidence)
    cases, unlike = evaluation_notes.own_labels(loaded.task, list(dataset))
    dataset, left_out = replace(dataset, cases=tuple(cases)), len(known) - len(dataset)
    unseen = UnseenPredictions()
    settled, decisions = _decide(unseen, loaded, dataset, str(source))
    notes = [*unlike, *_notes(source, loaded, dataset)]
    if detect.is_foreign(source) and settled.guard is None:
        settled, judged = gate.gate_of_site(unseen, settled, cases)
        decisions |= judged
    known_cases = bool(evidence.trained)
    counts = len(cases), left_out
    evidence, unkept = _calibrated_anew(evidence, settled.task, decisions, counts, hashes, notes)
    certificate = None
    with package.new_package_folder(out, options.overwrite, zipped, marks) as folder:
        if as_it_is:
            detect.write_calibrated(settled, source, _facts(evidence), folder)
        else:
            package_writing.write_package(settled, evidence, folder.name, folder)
        if not as_it_is and options.backends != ():
            kept = cases[:MOST]
            shown = ValidationImages(f"{len(kept)} of {errors.count_phrase(len(cases), 'calibrating case')}", kept)
            how: dict[str, Any] = {"names": options.backends, "devices": ("cpu",), "threads": options.threads}
            certificate = certification.certify(folder, settled, shown, shown.description, **how)
    patients = len({case.patient for case in cases}) if dataset.patients_known else None
    return CalibrationResult(out, len(cases), patients, decisions, certificate, left_out, unkept, known_cases)


def _stays_as_it_is(source: Path, model: Model, out: Path, *, for_packages: bool) -> bool:
    """Whether the model, of another program, cannot become a package; UsageError for what only packages have."""
    if not detect.is_foreign(source) or detect.why_unpackable(model) is None:
        return False
    if problem := detect.why_unkept(model):
        raise UsageError(problem, str(source), "Predict with it as it is")
    if for_packages:
        problem = f"is asked for as a package, and {detect.why_unpackable(model)}"
        raise UsageError(problem, str(out), "Give a folder as --out, without --backends: it keeps the model as it is")
    return True


def _decide(
    unseen: UnseenPredictions, loaded: Model, dataset: Dataset, where: str
) -> tuple[Model, dict[str, Decision]]:
    """The model with what these cases decide; UsageError where that is nothing.

    What they say nothing of stays as it was: a part of the task without a reference, a baseline without an event.
    """
    held, tuning = _split_cases(dataset)
    exact, silent = bool(held), _silent_parts(loaded.task, tuning)
    kept = {
        f"{name}.{setting}" for name, part in silent.items() for setting in task_settings.found_after_training(part)
    }
    open_task = task_catalogue.untuned_task(loaded.task, kept)
    deciding = PredictedCases(unseen.predict(loaded, open_task, tuning), tuning)

    def calibrating(task: Task) -> PredictedCases:
        """Cases that decide nothing else, by the task so far."""
        return PredictedCases(unseen.predict(loaded, task, held), held)

    conformal = calibrating if exact else None
    task, decisions = fitting.fit_task(open_task, deciding, origin="site", otherwise=loaded.task, conformal=conformal)
    # networks differ by the new slope
    renewed = model_assembly.with_uncertainty(replace(loaded, task=task), loaded.uncertainty.name)
    settled, judged = gate.refit_gate(unseen, renewed, held or tuning, exact=exact)
    decided = {**decisions, **judged}
    if not decided:
        problem = "its outputs do not correspond to labels that could be calibrated"
        raise UsageError(
            problem, where, "Use it as it is; of overlapping regions a model has to say which labels they hold"
        )
    lost = [name for name in fitting.found_settings(loaded.task) if task_settings.settings_of(task)[name] is None]
    return settled, decided | {f"task.{name}": Decision(None, NOT_SET) for name in lost}


def _split_cases(dataset: Dataset) -> tuple[list[Case], list[Case]]:
    """The cases that set promises alone, none where every case would, and those that decide all the rest.

    UsageError where a patient has cases on both sides: what is promised would rest on people who decided the rest.
    """
    held = [case for case in dataset if dataset.splits.get(case.id) == "calibration"]
    others = [case for case in dataset if dataset.splits.get(case.id) != "calibration"]
    if not (held and others):
        return [], held or others
    if both := {case.patient for case in held} & {case.patient for case in others}:
        patients = errors.count_phrase(len(both), "patient has", "patients have")
        problem = f"{patients} cases within the part calibration and outside"
        raise UsageError(problem, str(dataset.root or dataset.name), "Put all cases of a patient into one part")
    return held, others


def _silent_parts(task: Task, cases: Sequence[Case]) -> dict[str, Task]:
    """{name: part} of a task that is made of tasks, of those of which none of these cases has a reference."""
    return {
        name: part
        for name, part in properties.leaf_tasks(task).items()
        if name and not any(part.needs <= set(case.references) for case in cases)
    }


def _notes(source: Path, loaded: Model, dataset: Dataset) -> list[str]:
    """Notes on what cases that calibrate a model say nothing of, and whether they may be of patients who trained it."""
    silent = _silent_parts(loaded.task, _split_cases(dataset)[1])
    stays = f"{SILENT}{errors.list_phrase(list(silent))}: what was found for it after training stays."
    same = case_selection.same_name_note(dataset, case_selection.training_patients(loaded, source))
    return [*([stays] if silent else []), *([f"{same} what they have decided is too sure of itself."] if same else [])]


def _calibrated_anew(
    evidence: PackageEvidence,
    task: Task,
    made: Mapping[str, Decision],
    counts: tuple[int, int],
    hashes: Iterable[str],
    notes: Sequence[str],
) -> tuple[PackageEvidence, tuple[str, ...]]:
    """Parts of the model calibrated anew, and sentences on what these cases could not decide as it was asked for.

    counts: of the cases that calibrate, and of those that were left out; notes: of `_notes`
    """
    cases, left_out = counts
    decisions = {**evidence.decisions, **made}
    own = {name.removeprefix("task."): one for name, one in decisions.items() if name.startswith("task.")}
    unkept = (*task_settings.unkept_rules(task, own), *notes)
    former = [limit for limit in evidence.limits if not limit.startswith((UNKEPT, SILENT))]
    before = "; the figures are of the model before that" if evidence.rows else ""
    limit = f"Calibrated on {errors.count_phrase(cases, 'case')} after training{before}."
    limit += f" {_left_out(left_out)}." if left_out else ""
    limits = [
        *former,
        *unkept,
        *model_verdict.boundless_sentences(task),
        *(() if evidence.trained else (UNCHECKED,)),
        limit,
    ]
    trained = sorted({*evidence.trained, *hashes})
    return replace(evidence, limits=limits, decisions=decisions, trained=trained), unkept


def _without_boundless(evidence: PackageEvidence, before: Task) -> PackageEvidence:
    """Without what was said of thresholds that are found anew; before: the task that had them."""
    former = {
        words
        for one in model_verdict.boundless_sentences(before)
        for words in (one, plan_decisions.patients_as_cases(one))
    }
    return replace(evidence, limits=[limit for limit in evidence.limits if limit not in former])


def _left_out(cases: int) -> str:
    return f"{errors.count_phrase(cases, 'case')} of the set's own test part left out: {NO_TEST}"


def _facts(evidence: PackageEvidence) -> CalibratedFacts:
    """Facts that a folder with a model of another program keeps of the cases that calibrated it."""
    decisions = {name: record_schema.decision_record(one) for name, one in evidence.decisions.items()}
    return {"trained": list(evidence.trained), "limits": list(evidence.limits), "decisions": decisions}


def _evidence(source: Path, model: Model) -> PackageEvidence:
    """Evidence on the model: of a run, of a package, or none."""
    if detect.is_foreign(source):
        limits = model.record.get("limits") or [
            f"Adopted from {model.record['origin']}: Hilum has measured nothing of it."
        ]
        return PackageEvidence(limits=limits, trained=model.record.get("trained", ()))
    if all((source / mark).is_file() for mark in RUN_MARKS):
        return package.run_evidence(source, model, package.finished_plan(source))
    with record_files.unpack(source) as folder:
        record = package_contents.package_record(folder)
        kept = kept_tests.kept_content(folder, model)
        audits = package.audit_texts(folder / PACKAGED)
    own = record["record"]
    decisions = {name: Decision(**one) for name, one in record["decisions"].items()}
    rows = case_tables.rows_from_records(record["evaluation"])
    return PackageEvidence(rows, own["limits"], decisions, own["trained"], own["tested"], kept, audits)


def _unseen(dataset: Dataset, evidence: PackageEvidence) -> tuple[Dataset, set[str]]:
    """The cases without a set's own test part, and their hashes; UsageError where any has had a part in the model."""
    where = str(dataset.root or dataset.name)
    kept = dataset.only({case.id for case in dataset if dataset.splits.get(case.id) != "test"})
    if not len(kept):
        remedy = f"Give other labelled cases: {NO_TEST}"
        raise UsageError("holds only cases of the set's own test part", where, remedy)
    by_case = data_record.hashes_by_case(kept)
    for known, verb in ((evidence.trained, "trained or selected"), (evidence.tested, "tested")):
        if seen := sorted(case for case, own in by_case.items() if own & set(known)):
            seen_cases = errors.count_phrase(len(seen), "case")
            problem = f"{seen_cases} with the same content {verb} this model: {errors.list_phrase(seen)}"
            raise UsageError(problem, where, "Give cases that the model has not seen")
    return kept, set().union(*by_case.values())
