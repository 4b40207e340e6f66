from __future__ import annotations

import numpy as np
import pandas as pd

from hilum.scoring.auditing import label_ranking
from hilum.tasks import task_catalogue, task_settings


def scored(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([{"patient": row["case"], "split": "test", "fold": "0", "label": "all", **row} for row in rows])


def test_all_cases_are_ranked_and_those_that_are_probably_labelled_wrongly_come_first():
    task = task_settings.task_from_settings(
        task_catalogue.task_class("classification"), {"classes": ["a", "b", "rare"], "smoothing": 0.0}
    )
    rng, wrong = np.random.default_rng(0), {3, 30, 44}
    rows = []
    for n in range(120):
        truth = n % 2
        p = 1 / (1 + np.exp(-5 * (rng.normal() + 5 * truth - 2.5)))
        label = "ab"[1 - truth if n in wrong else truth]
        chances = {"probability_a": 1 - p, "probability_b": p, "probability_rare": 0.0}
        rows.append({"case": f"c{n}", "reference": label, "predicted": "ab"[truth], **chances})
    rows.append({**rows[0], "case": "alone", "reference": "rare"})
    ranking = label_ranking.rank_labels(task, scored(rows), seed=0)
    assert set(ranking.table["case"][:3]) == {f"c{n}" for n in wrong}
    assert len(ranking.table) == 120 and list(ranking.table) == label_ranking.LOOK
    assert set(ranking.suspected["case"]) == {f"c{n}" for n in wrong} == set(ranking.problems[0].cases)
    assert ranking.problems[0].kind == "doubted-label"
    share = ranking.shares["all"]
    assert share.low <= 3 / 120 <= share.high
    assert "expected to be wrong: 2." in ranking.statement
    assert ranking.notes == ("Not looked at for label errors, with fewer than 5 labels of unseen cases: rare (1).",)


def test_masks_are_ranked_structure_by_structure_by_what_is_usual_for_each():
    task = task_settings.task_from_settings(
        task_catalogue.task_class("segmentation"),
        {"labels": [{"value": 1, "name": "organ"}, {"value": 2, "name": "tumour"}]},
    )
    rows = [
        {"case": f"c{n}", "label": label, "dice": usual + 0.01 * (n % 3)}
        for n in range(12)
        for label, usual in (("organ", 0.95), ("tumour", 0.5))
    ]
    rows[10]["dice"] = 0.7  # of an organ, worse than any other, and better than each tumour
    ranking = label_ranking.rank_labels(task, scored(rows), seed=0)
    first = ranking.table.iloc[0]
    assert (first["case"], first["label"]) == ("c5", "organ")
    assert len(ranking.table) == 24 and not ranking.shares and not ranking.problems
