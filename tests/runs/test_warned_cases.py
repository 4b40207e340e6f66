from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hilum
import trained
from hilum.errors import UsageError
from hilum.planning import plan_file
from situations import write_picture


def table_of_discs(root: Path, count: int = 24, empty: tuple[int, ...] = (3, 20)) -> Path:
    """A table of pictures of a disc with masks, of which some are empty: the last six test."""
    rows, columns = np.indices((32, 32))
    disc = (rows - 16) ** 2 + (columns - 16) ** 2 < 60
    lines = ["case,patient,split,image,mask"]
    for n in range(count):
        speckle = np.random.default_rng(n).integers(0, 60, disc.shape)
        write_picture(root / f"image{n}.png", (speckle + 120 * disc).astype(np.uint8))
        write_picture(root / f"mask{n}.png", (disc * (n not in empty)).astype(np.uint8))
        lines.append(f"c{n},p{n},{'test' if n >= count - 6 else 'train'},image{n}.png,mask{n}.png")
    table = root / "dataset.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return table_of_discs(tmp_path_factory.mktemp("warned"))


def planned(table: Path, **flags):
    return hilum.plan(table, device="cpu", threads=1, **flags)


def test_a_warned_case_trains_unless_it_is_left_out_and_tests_all_the_same(table):
    usual, fewer = planned(table), planned(table, warned="leave")
    assert usual.parts["c3"] in ("train", "val") and usual.parts["c20"] == "test"
    assert usual.warned_sentences == [
        "1 case with a warning trains or selects all the same: c3 (--warned leave leaves it out; `hilum check DATA` "
        "says why)."
    ]
    assert "c3" not in fewer.parts and fewer.parts["c20"] == "test"
    assert fewer.warned_sentences == ["1 case with a warning left out of training: c3 (split.warned)."]
    assert planned(table, assignments={"split.warned": "leave"}).parts == fewer.parts


def test_the_figures_with_and_without_warned_test_cases_are_stated(table, tmp_path):
    few = {**trained.FEW_STEPS, "network.size": {**trained.SMALL_UNET, "strides": [[1, 1], [2, 2]]}}
    planned(table, out=tmp_path / "plan.yaml", assignments=few, warned="leave")
    run = hilum.train(tmp_path / "plan.yaml", out=tmp_path / "run")
    assert plan_file.read_plan(run.out / "plan.yaml")["split.warned"] == "leave"
    [left, figures] = [note for note in run.notes if "with a warning" in note]
    assert left == "1 case with a warning left out of training: c3 (split.warned)."
    assert figures.startswith("1 of 6 test cases with a warning: ") and " with them, " in figures
    assert not any("nearly the same image is held out" in note for note in run.notes)


def test_a_word_that_is_none_and_two_words_are_refused(table):
    with pytest.raises(UsageError, match="warned"):
        planned(table, warned="weigh")
    with pytest.raises(UsageError, match=r"conflicts with --set split\.warned"):
        planned(table, warned="leave", assignments={"split.warned": "train"})
