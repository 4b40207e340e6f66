"""What predictions and scores are believed to cost, by a few windows of one case, beside what they take.

    python bench/case_costs.py --threads 1 --steps 30 --record

Five sets, a short training each; then its test cases are predicted and scored, at most twenty.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from recorded import record
from trainings import ROOT, add_options, trained

import isocenter
from isocenter.files.storage import csv_text
from isocenter.planning import plan_file
from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.runs import _costs

MOST = 20
SETS = {
    "hippocampus": ("hippocampus", ("--labels", "1=anterior,2=posterior")),
    "retina": ("chasedb1", ("--modality", "OP")),
    "radiographs": ("chest_xray", ("--modality", "DX")),
    "cells": ("bccd", ("--modality", "GM")),
    "ultrasound": ("ultrasound", ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "case_costs", minutes=None, of="of each training")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    given = parser.parse_args()
    rows = [row for name in given.sets if (row := compared(name, given)) is not None]
    lines = [
        "| set | measured on | predicting a case, believed | took | scoring a case, believed | took |",
        "|---|---|---|---|---|---|",
    ]
    for name, share, *seconds in rows:
        lines.append(f"| {name} | {share:.0%} of a case | " + " | ".join(f"{one:.4f} s" for one in seconds) + " |")
    text = "\n".join(lines)
    print(text)
    if given.record:
        record("case_costs", "Costs of a case by a few windows", text, {"rows": rows})


def compared(name: str, given: argparse.Namespace) -> tuple[str, float, float, float, float, float] | None:
    """Share of a case that was measured, s believed to predict and that it takes, and the same to score."""
    path, words = SETS[name]
    run = given.out / name
    if not (run / "report.html").is_file() and trained(name, [given.data / path, *words], 0, given).returncode:
        return None
    model, plan = isocenter.load(run), plan_file.read_plan(run / "plan.yaml")
    parts = csv_text.read_text_table(run / "split.csv").set_index("case")["split"]
    dataset = dataset_reading.open_dataset(
        given.data / path, ReadingOptions.of_plan(plan.options), needs=model.task.needs
    )
    cases = [case for case in dataset if parts.get(case.id) == "test" and model.task.needs <= set(case.references)][
        :MOST
    ]
    sizes = {case.id: next(iter(case.images.values())).geometry for case in cases}
    mean = sum(math.prod(sizes[case.id].shape) for case in cases) / len(cases)
    usual = min(cases, key=lambda case: abs(math.prod(sizes[case.id].shape) - mean))
    believed = [_costs.measured_costs(model, usual)]
    took = [0.0, 0.0]
    for case in cases:
        marks = [time.monotonic()]
        prediction = model.predict(case)
        marks.append(time.monotonic())
        model.task.score([prediction], [case])
        marks.append(time.monotonic())
        took = [sum_of + end - start for sum_of, start, end in zip(took, marks, marks[1:], strict=False)]
    believed.append(_costs.measured_costs(model, usual))  # before and after: other programs come and go
    predict, score = (sum(getattr(one, name) for one in believed) / 2 for name in ("predict", "score"))
    share = 1 / _costs.sample_of(model, usual).voxels
    return name, share, predict, took[0] / len(cases), score, took[1] / len(cases)


if __name__ == "__main__":
    main()
