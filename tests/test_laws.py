"""Statements of reports keep their laws in a few simulated studies; `bench/laws.py` simulates many.

`make test` takes one law of each claim, `make test-all` each that takes little time.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"


def laws():
    sys.path.insert(0, str(BENCH))
    try:
        names = sorted(file.stem for file in (BENCH / "claims").glob("*.py") if file.stem != "law")
        found = [law for name in names for law in importlib.import_module(f"claims.{name}").LAWS]
    finally:
        sys.path.remove(str(BENCH))
    few = [law for law in found if law.few]
    first = {law.claim: law for law in reversed(few)}
    return [
        pytest.param(law, id=f"{law.claim}: {law.cell}", marks=[pytest.mark.whole] * (first[law.claim] is not law))
        for law in few
    ]


@pytest.mark.parametrize("law", laws())
def test_a_statement_keeps_its_law_in_a_few_studies(law):
    low, high = law.wide or (law.low, law.high)
    assert low <= np.nanmean(law.studied(law.few)) <= high
