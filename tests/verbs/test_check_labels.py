from __future__ import annotations

import logging
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

import hilum
from hilum.errors import UsageError
from hilum.runs import label_trainings
from hilum.scoring.auditing import label_ranking
from hilum.scoring.auditing.label_ranking import LabelRanking
from situations import write_picture


def discs(root: Path, wrong: set[int]) -> Path:
    """Dark and bright discs on speckle, in a folder for each; those that are wrong are in the folder of the others."""
    rows, columns = np.indices((24, 24))
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 40
    for n in range(40):
        generator = np.random.default_rng(n)
        bright = n % 2 == 1
        speckle = ndimage.gaussian_filter(generator.normal(size=disc.shape), 1.5)
        image = 120 + 150 * speckle + (60 if bright else -60) * disc
        folder = "bright" if bright != (n in wrong) else "dark"
        write_picture(root / folder / f"image{n}.png", image.clip(0, 255).astype(np.uint8))
    return root


@pytest.mark.whole
def test_labels_that_are_wrong_are_first_in_the_list_that_is_written(tmp_path):
    data = discs(tmp_path / "discs", {4, 9})
    found = hilum.check(data, minutes=0.05, out=tmp_path / "out", threads=1)
    table = pd.read_csv(tmp_path / "out" / "relabel.csv")
    assert {Path(case).name for case in table["case"][:2]} == {"image4", "image9"}
    assert len(table) == 40
    assert "expected to be wrong" in found.facts["labels"] and "relabel.csv" in repr(found)
    assert "References that may be wrong" in (tmp_path / "out" / "check.html").read_text()


def test_a_doubted_label_that_a_person_accepts_is_a_note_and_no_warning_again(tmp_path, monkeypatch):
    doubted = ["image4", "image9"]
    rows = [{"case": case, "label": "all", "why": label_ranking.PROBABLE} for case in doubted]
    ranking = LabelRanking(pd.DataFrame(rows, columns=label_ranking.LOOK), {})
    # Trainings of a few seconds rank, but are seldom sure of a wrong label.
    monkeypatch.setattr(label_trainings, "rank_by_training", lambda *_, **__: ranking)
    found = hilum.check(discs(tmp_path / "discs", {4, 9}), minutes=1, out=tmp_path / "out", threads=1)
    [warning] = [one for one in found.problems if one.kind == "doubted-label"]
    assert (warning.severity, list(warning.cases)) == ("warning", doubted)

    table = tmp_path / "out" / "dataset.csv"
    cases = pd.read_csv(table)
    cases["accepted"] = [warning.accepts[0] if case == doubted[0] else None for case in cases["case"]]
    cases.to_csv(table, index=False)
    again = hilum.check(table, minutes=1, threads=1)
    kept = {one.severity: list(one.cases) for one in again.problems if one.kind == "doubted-label"}
    assert kept == {"note": doubted[:1], "warning": doubted[1:]}


def test_a_stop_while_it_trains_keeps_what_was_found_before(tmp_path):
    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "training" in record.getMessage():
                signal.raise_signal(signal.SIGINT)

    logger, handler = logging.getLogger("hilum"), Stop()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            hilum.check(discs(tmp_path / "discs", set()), minutes=0.05, out=tmp_path / "out", threads=1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    page = (tmp_path / "out" / "check.html").read_text()
    assert "not ranked: the training was stopped" in page
    assert not (tmp_path / "out" / "relabel.csv").exists()


def test_minutes_for_what_learns_from_no_reference_are_refused(tmp_path):
    with pytest.raises(UsageError, match="learns from no reference"):
        hilum.check(discs(tmp_path / "discs", set()), minutes=1, task="representation")
