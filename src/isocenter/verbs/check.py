"""`check`: what is here, and is it fit to learn from."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, IsocenterError, UsageError, counted
from isocenter.files import OWN_TABLE, UNKNOWN_MODALITY, dataset_hash, write_dataset_table
from isocenter.keywords import takes
from isocenter.lazy import pandas as pd
from isocenter.options import CheckOptions
from isocenter.planning import cores, normalised_problems
from isocenter.quality import Examination, guessed_modality, modality_problems, reference_kinds
from isocenter.reading import (
    Data,
    ReadingOptions,
    open_dataset,
    opened_and_looked_through,
    path_of,
    refuse_taken,
    result_folder,
    write_alignment,
)
from isocenter.report import InNotebook, render
from isocenter.runtime import Cluster, write_json
from isocenter.scoring import Audited, image_shift, represented
from isocenter.tasks import learns_from_references
from isocenter.transforms import GREY
from isocenter.values import SPLITS, Cohort, Dataset, Problem, counted_in, sizes_in_words
from isocenter.verbs.check_report import SEVERITIES, case_record, check_page

MARKS = ("check.json",)


@dataclass(frozen=True, eq=False)
class Check(InNotebook):
    """The findings about a data set; prints itself."""

    dataset: Dataset
    examination: Examination
    facts: Mapping[str, Any]
    out: Path | None = field(default=None)
    audits: Sequence[Audited] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The findings that speak against training."""
        return self.examination.problems

    @property
    def table(self) -> pd.DataFrame:
        """The findings, the worst first: severity, what, cases, why, remedy."""
        findings = sorted(self.problems, key=lambda problem: SEVERITIES.index(problem.severity))
        return pd.DataFrame([asdict(one) for one in findings], columns=["severity", "what", "cases", "why", "remedy"])

    def as_record(self) -> dict[str, Any]:
        """The content of `check.json`."""
        rows = [
            {"severity": p.severity, "what": p.what, "cases": list(p.cases), "why": p.why, "remedy": p.remedy}
            for p in self.problems
        ]
        examination = self.examination
        return {
            "schema": "isocenter.check",
            "version": 1,
            "facts": dict(self.facts),
            "passed": self.passed,
            "rows": rows,
            "twins": [
                {"cases": [twin.first, twin.second], "likeness": round(twin.likeness, 4), "exact": twin.exact}
                for twin in examination.pairs
            ],
            "shortcuts": [asdict(shortcut) for shortcut in examination.shortcuts],
            "cases": {case.id: case_record(case, examination.looks[case.id]) for case in examination.fingerprint.cases},
        }

    @property
    def passed(self) -> bool:
        """Whether training may go on."""
        return not self.examination.fatal

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for problem in sorted(self.problems, key=lambda problem: SEVERITIES.index(problem.severity)):
            lines.extend(_lines(problem))
        if not self.problems:
            lines.append("nothing was found that speaks against training")
        if self.out is not None:
            names = ["check.html", *([OWN_TABLE] if self.dataset.table is not None else [])]
            lines.append(f"written: {', '.join(str(self.out / name) for name in names)}")
        return "\n".join(lines)


def _lines(problem: Problem) -> list[str]:
    """A finding in lines: what and which cases, why it matters, what to do."""
    cases = f" [{', '.join(problem.cases[:3])}{', ...' if len(problem.cases) > 3 else ''}]" if problem.cases else ""
    many = f" ({counted(len(problem.cases), 'case')})" if len(problem.cases) > 3 else ""
    lines = [f"{problem.severity:8}{problem.what.rstrip('.')}{many}{cases}."]
    for text in (problem.why, problem.remedy):
        if text:
            lines.append(f"{'':8}{text[:1].upper()}{text[1:].rstrip('.')}.")
    return lines


@takes(CheckOptions)
def check(options: CheckOptions) -> Check:
    """Read every case of `data` once and say what is there and what is wrong.

    out:   a folder for check.json, check.html and dataset.csv, which holds the cases row by row (also where they are
        refused); nothing is written without it
    shift: groups whose images are compared, into shift.csv; match: covariates by which their patients are paired
    Raises UsageError for a path or a covariate that is not there, DatasetError for a folder that cannot be understood.
    """
    data = options.data
    if options.out is not None:
        refuse_taken(Path(options.out), options.overwrite, MARKS)
    if options.scheduler is not None and (path := path_of(data)):
        data = path.absolute()  # a worker has another working folder
    references = learns_from_references(options.task)
    reading = options.reading
    opened = functools.partial(_opened, data, reading, references=references)
    spread = None if options.scheduler is None else Cluster(options.scheduler)
    try:
        dataset, examination, _ = opened_and_looked_through(opened, options.task, options.threads or cores(), spread)
    except DatasetError as error:
        if options.out is not None and (written := _write_images(options, Path(options.out))) is not None:
            raise error.stating(remedy=f"{error.remedy.rstrip('.')}. The images are listed in {written}") from error
        raise
    unknown = modality_problems(examination.dataset, examination.fingerprint)
    lost = normalised_problems(examination.dataset, examination.fingerprint)
    examination = replace(examination, problems=(*examination.problems, *unknown, *lost))
    facts = _facts(dataset, examination)
    audits = tuple(_audits(examination, options.groups, options.population, options.shift, options.match))
    result = Check(dataset, examination, facts, Path(options.out) if options.out is not None else None, audits)
    if options.out is not None:
        with result_folder(Path(options.out), options.overwrite, MARKS) as partial:
            write_alignment(dataset, reading.align, partial)
            write_dataset_table(dataset, partial, Path(options.out))
            write_json(partial / "check.json", "isocenter.check", result.as_record())
            for audit in audits:
                audit.write(partial)
            sections = [section for audit in audits for section in audit.sections]
            page = render(check_page(result.examination, result.facts, sections))
            (partial / "check.html").write_text(page, encoding="utf-8")
    return result


def _write_images(options: CheckOptions, out: Path) -> Path | None:
    """Write `dataset.csv` of a folder that could not be understood, with its images, and return its path.

    None where no image is found.
    """
    for layout in (options.layout, "plain_images"):
        try:
            dataset = open_dataset(options.data, replace(options.reading, layout=layout), references=False)
        except IsocenterError:
            continue
        with result_folder(out, options.overwrite, MARKS) as partial:
            write_dataset_table(dataset, partial, out)
        return out / OWN_TABLE
    return None


def _audits(
    examination: Examination,
    groups: str | None,
    population: str | Path | None,
    shift: str | None,
    match: str | Sequence[str] | None,
) -> Iterator[Audited]:
    """The audits of groups of people that were asked for."""
    if population is not None and groups is None:
        raise UsageError("says nothing without groups", "--population", "Add --groups sex,age:40:60")
    if match is not None and shift is None:
        raise UsageError("says nothing without groups whose images are compared", "--match", "Add --shift site")
    if groups is not None and (audit := represented(examination.dataset, groups, population)) is not None:
        yield audit
    if shift is not None:
        names = match.split(",") if isinstance(match, str) else match or ()
        yield image_shift(examination, shift, [name.strip() for name in names if name.strip()])


def _opened(data: Data, reading: ReadingOptions, needs: Collection[str], *, references: bool) -> Dataset:
    """The data set; images without any reference are checked too, and the lack becomes an error of the list."""
    try:
        return open_dataset(data, reading, references=references, needs=needs)
    except DatasetError as error:
        dataset = open_dataset(data, reading, references=False)
        if dataset.kinds or not len(dataset):
            raise
        lack = Problem("error", error.problem, (), "nothing can be learnt from them, only predicted", error.remedy)
        return replace(dataset, problems=(lack, *dataset.problems))


def _facts(dataset: Dataset, examination: Examination) -> dict[str, Any]:
    usable, fingerprint = examination.dataset, examination.fingerprint
    facts: dict[str, Any] = {
        "data": dataset.name or str(dataset.root),
        "read as": dataset.layout,
        "cases": f"{len(usable)} of {len(dataset)} can be used",
        "patients": dataset.patients if dataset.patients_known else f"{len(dataset)} ({dataset.patients})",
        "references": ", ".join(sorted(dataset.kinds)) or "none",
        "data hash": dataset_hash(usable),
    }
    if dataset.splits:
        parts = list(dataset.splits.values())
        facts["own split"] = ", ".join(f"{part} {parts.count(part)}" for part in SPLITS if part in parts)
    if fingerprint.cases:
        shapes = {case.shape for case in fingerprint.cases}
        facts["shapes"] = sizes_in_words(shapes)
        if all(case.physical for case in fingerprint.cases) and len({len(shape) for shape in shapes}) == 1:
            median = np.median(fingerprint.steps, axis=0)
            facts["spacing"] = f"median {' x '.join(f'{s:.4g}' for s in median)} {fingerprint.unit}"
        else:
            facts["spacing"] = f"not known for every case: lengths are in {counted_in(fingerprint.axes)}"
        facts["modality"] = ", ".join(sorted({case.modality for case in fingerprint.cases}))
        unknown = facts["modality"] == dataset.modality == UNKNOWN_MODALITY
        if unknown and (guess := guessed_modality(usable, fingerprint)):
            facts["modality"] += f"; guessed: {guess.modality}, because {guess.because}"
        channels = {case.channels for case in fingerprint.cases}  # a file that names none numbers them from 0
        named = ("one, without a name" if one == GREY else ", ".join(one) for one in channels)
        facts["channels"] = "; ".join(sorted(named))
    for kind in reference_kinds():
        facts |= kind.words.lines(Cohort(dataset, fingerprint))
    if examination.unmeasured:
        facts["shortcuts"] = "; ".join(examination.unmeasured)
    return facts
