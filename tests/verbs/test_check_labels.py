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
