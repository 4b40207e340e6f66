"""Faults that are planted in real inputs by rule are found, refused or harmless, as what was planted says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import planted_faults

from fuzzing import FAILURES


@pytest.mark.parametrize("number", range(60))
def test_a_planted_fault_has_its_right_outcome(data: Path, number: int) -> None:
    outcome = planted_faults.outcome_of(number, (data,))
    if outcome.family != planted_faults.NEXT:
        assert outcome.kind == "right", outcome
        assert outcome.remedy != "not remedied", outcome


def test_draws_of_a_number_are_always_the_same(data: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        planted_faults.planted(4, (data,), folder)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "first", tmp_path / "second")
    )
    assert first == second


@pytest.mark.whole
def test_a_worker_judges_draws_one_after_the_other(data: Path) -> None:
    found = list(planted_faults.outcomes(range(60, 64), (data,)))
    assert [one.number for one in found] == [60, 61, 62, 63]
    assert not {one.kind for one in found} & {*FAILURES, *planted_faults.FAILURES}
