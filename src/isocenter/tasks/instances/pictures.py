"""Charts of the objects of all cases."""

from __future__ import annotations

from isocenter.evaluation import Table
from isocenter.report import Figure, figures
from isocenter.tasks.instances.scores import METRICS


def overview(table: Table) -> list[Figure]:
    """Metrics of the cases, and numbers of objects over those of the reference."""
    known = {METRICS.of(name).words: table[name].dropna().to_numpy(float) for name in ("ap50", "aji", "pq")}
    reference, predicted = (table[name].to_numpy(float) for name in ("objects_reference", "objects_predicted"))
    axes = ("objects of the reference", "objects predicted")
    return [
        figures.histogram(known, "Scores of the cases", axis="score"),
        figures.scatter(reference, predicted, "Numbers of objects", axes=axes, identity=True),
    ]
