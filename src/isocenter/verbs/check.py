"""`check`: what is here, and is it fit to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import DatasetError
from isocenter.files import dataset_hash
from isocenter.planning import this_machine
from isocenter.quality import Examination
from isocenter.report import Facts, Page, Problems, Section, figures, render
from isocenter.runtime import write_json
from isocenter.values import Dataset, Problem
from isocenter.verbs.dataset import looked_through, open_dataset
from isocenter.verbs.output import refuse_taken, result_folder

SHOWN_CASES = 24
MARKS = ("check.json",)


@dataclass(frozen=True, eq=False)
class Check:
    """What was found about a data set; prints itself."""

    dataset: Dataset
    examination: Examination
    facts: Mapping[str, Any]
    out: Path | None = field(default=None)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.examination.problems

    def as_record(self) -> dict[str, Any]:
        """What `check.json` holds."""
        rows = [
            {"severity": p.severity, "what": p.what, "cases": list(p.cases), "why": p.why, "remedy": p.remedy}
            for p in self.problems
        ]
        cases = {
            case.id: {"shape": list(case.shape), "spacing": list(case.steps) if case.physical else None}
            for case in self.examination.fingerprint.cases
        }
        return {
            "schema": "isocenter.check",
            "version": 1,
            "facts": dict(self.facts),
            "passed": self.passed,
            "rows": rows,
            "cases": cases,
        }

    @property
    def passed(self) -> bool:
        """Whether training may go on."""
        return not self.examination.fatal

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for problem in self.problems:
            cases = (
                f" [{', '.join(problem.cases[:5])}{', ...' if len(problem.cases) > 5 else ''}]" if problem.cases else ""
            )
            remedy = f" {problem.remedy.rstrip('.')}." if problem.remedy else ""
            lines.append(f"{problem.severity}: {problem.what}{cases}.{remedy}")
        if not self.problems:
            lines.append("nothing was found that speaks against training")
        if self.out is not None:
            lines.append(f"written: {self.out / 'check.html'}")
        return "\n".join(lines)


def check(
    data: str | Path | Dataset,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    **given: Any,
) -> Check:
    """Read every case of `data` once and say what is there and what is wrong.

    out:   a folder for check.json and check.html; nothing is written without it
    given: layout, labels, patient, column, modality, part, prefer, as in `train`
    Raises UsageError for a path that is not there, DatasetError for a folder that cannot be understood.
    """
    if out is not None:
        refuse_taken(Path(out), overwrite, MARKS)
    dataset = _opened(data, given)
    examination = looked_through(dataset, threads or this_machine("cpu").threads)
    facts = _facts(dataset, examination)
    result = Check(dataset, examination, facts, Path(out) if out is not None else None)
    if out is not None:
        with result_folder(Path(out), overwrite, MARKS) as partial:
            write_json(partial / "check.json", "isocenter.check", result.as_record())
            (partial / "check.html").write_text(render(_page(result)), encoding="utf-8")
    return result


def _opened(data: str | Path | Dataset, given: Mapping[str, Any]) -> Dataset:
    """The data set; images without any reference are looked at too, and the lack is an error to be listed."""
    try:
        return open_dataset(data, given)
    except DatasetError as error:
        dataset = open_dataset(data, given, references=False)
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
        facts["own split"] = ", ".join(f"{part} {parts.count(part)}" for part in ("train", "val", "test"))
    if fingerprint.cases:
        shapes = sorted({case.shape for case in fingerprint.cases})
        facts["shapes"] = f"{shapes[0]} to {shapes[-1]}" if len(shapes) > 1 else f"all {shapes[0]}"
        if all(case.physical for case in fingerprint.cases) and len({len(shape) for shape in shapes}) == 1:
            median = np.median(fingerprint.steps, axis=0)
            facts["spacing"] = f"median {' x '.join(f'{s:.4g}' for s in median)} mm"
        else:
            facts["spacing"] = "not known for every case: lengths are in pixels"
        facts["modality"] = ", ".join(sorted({case.modality for case in fingerprint.cases}))
        facts["channels"] = "; ".join(sorted({", ".join(case.channels) for case in fingerprint.cases}))
    if counts := fingerprint.counts():
        facts["classes"] = ", ".join(f"{name} {count}" for name, count in counts.items())
    if voxels := fingerprint.voxels():
        names = {label.value: label.name for label in dataset.classes.get("mask", ())}
        facts["mask values"] = ", ".join(f"{names.get(v, v)} {n} voxels" for v, n in voxels.items() if v != 0)
    return facts


def _page(result: Check) -> Page:
    usable = result.examination.dataset
    chosen = usable.cases[:: max(1, len(usable) // SHOWN_CASES)][:SHOWN_CASES]
    pictures = {case.id: next(iter(case.images.values())) for case in chosen}
    volumes = result.examination.fingerprint.cases
    blocks = [figures.contact_sheet(pictures, "Cases, evenly chosen")] if pictures else []
    if volumes:
        medians = {"median": [case.intensity[0]["median"] for case in volumes]}
        blocks.append(figures.histogram(medians, "Median intensity of the cases", axis="intensity, first channel"))
    worst = [problem.what for problem in result.problems if problem.severity != "note"]
    return Page(
        title=f"Check of {result.facts['data']}",
        lead="What is here, and what speaks against learning from it.",
        notes=worst[:3],
        sections=[
            Section("What was found", [Problems(result.problems)]),
            Section("What is here", [Facts(result.facts)]),
            Section("How it looks", blocks),
        ],
    )
