"""`compare`: models that were scored on the same cases, with the interval of their difference."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import IntegrityError, UsageError, counted
from isocenter.evaluation import SUMMARY_SCHEMA, read_cases, rows_from_json
from isocenter.keywords import named_keywords
from isocenter.report import Page, Section, render
from isocenter.runtime import read_json, write_json
from isocenter.verbs.evaluation import (
    CASES,
    SUMMARY,
    Comparison,
    compare_tables,
    comparison_caveats,
    comparison_lead,
    comparison_sentences,
    comparison_table,
    evaluation_folder,
    folder_names,
    primary_blocks,
    task_of,
)
from isocenter.verbs.reading import refuse_taken, result_folder

MARKS = ("comparison.json", "report.html")


@named_keywords()
def compare(
    *evaluations: str | Path,
    out: str | Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Comparison:
    """Runs, or folders that `evaluate` wrote, of the same kind on the same cases; the first is what the others go by.

    Patients are drawn again for all models alike, so that the interval is that of the difference, and not of two
    figures that have nothing to do with each other. Where many are compared, one in twenty differs by chance alone.
    out: a folder for comparison.json and report.html
    Raises UsageError for fewer than two, DatasetError where cases, patients or references are not the same.
    """
    folders = [evaluation_folder(Path(one)) for one in evaluations]
    if len(folders) < 2:
        raise UsageError(f"{counted(len(folders), 'evaluation')} given", "compare", "Give two runs or more")
    if out is not None:
        refuse_taken(Path(out), overwrite, MARKS)
    tasks = [task_of(folder) for folder in folders]
    kinds = {task.name for task in tasks}
    if len(kinds) > 1:
        problem = f"{' and '.join(sorted(kinds))} have no figures in common"
        raise UsageError(problem, "compare", "Give models that answer the same question")
    names = folder_names([Path(one) for one in evaluations])
    tables = {name: read_cases(folder / CASES) for name, folder in zip(names, folders, strict=True)}
    known = all(map(_patients_known, folders))
    where = None if out is None else Path(out)
    comparison = compare_tables(tables, tasks, seed=seed, patients_known=known, out=where)
    if comparison.out is not None:
        with result_folder(comparison.out, overwrite, MARKS) as folder:
            write_json(folder / MARKS[0], "isocenter.comparison", comparison.as_record())
            (folder / MARKS[1]).write_text(_report(comparison), encoding="utf-8")
    return comparison


def _patients_known(folder: Path) -> bool:
    """Whether an evaluation claims a number of patients for any figure."""
    path = folder / SUMMARY
    if not path.is_file():
        raise IntegrityError("is missing", str(path), "Evaluate the model again")
    rows = rows_from_json(read_json(path, SUMMARY_SCHEMA))
    return any(row.estimate.patients for row in rows)


def _report(comparison: Comparison) -> str:
    """One page: the primary metric as a picture, then every figure and difference."""
    others = [row for row in comparison.rows if row.metric != comparison.primary]
    exploratory = Section("Exploratory", [comparison_table(comparison, others)])
    return render(
        Page(
            " and ".join(comparison.names),
            [],
            [Section("Primary", primary_blocks(comparison)), exploratory],
            {"models": ", ".join(comparison.names)},
            lead=comparison_lead(comparison),
            verdict=" ".join(comparison_sentences(comparison)),
            remarks={"Keep in mind": comparison_caveats(comparison)},
        )
    )
