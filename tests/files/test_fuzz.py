"""Damaged files by number are read or refused: no other exception, no hang, no crash, no more memory than promised."""

from __future__ import annotations

from pathlib import Path

import pytest

import real_data
from fuzzing import FAILURES, fuzzed


def failures(data: Path, numbers: range, largest: int) -> list[str]:
    outcomes = list(fuzzed(data, numbers, largest=largest))
    assert len(outcomes) == len(numbers)
    assert {one.kind for one in outcomes} >= {"read", "refused"}
    return [f"{one.number} {one.what}: {one.kind} {one.because}" for one in outcomes if one.kind in FAILURES]


def test_sixty_damaged_files_are_read_or_refused(data: Path) -> None:
    assert failures(data, range(60), 1 << 18) == []


@pytest.mark.whole
@pytest.mark.parametrize(
    ("folder", "numbers"),
    [
        (real_data.SHIPPED, range(10_000, 11_000)),
        pytest.param(real_data.CORPUS, range(11_000, 12_000), marks=pytest.mark.corpus),
    ],
)
def test_a_thousand_damaged_files_are_read_or_refused(folder: Path, numbers: range) -> None:
    assert failures(folder, numbers, 1 << 21) == []
