"""Statements of reports keep their laws in a few simulated studies; `bench/laws.py` simulates many.

`make test` takes one law of each file of claims, `make test-all` each that takes little time.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from matrices import thinned

BENCH = Path(__file__).parents[1] / "bench"


def laws():
    sys.path.insert(0, str(BENCH))
    try:
        names = sorted(file.stem for file in (BENCH / "claims").glob("*.py") if file.stem != "law")
        found = [law for name in names for law in few_of(importlib.import_module(f"claims.{name}").LAWS)]
    finally:
        sys.path.remove(str(BENCH))
    return found


def few_of(laws):
    """The laws of a file that take little time, as parameters; those after the first have the mark `whole`."""
    few = [pytest.param(law, id=f"{law.claim}: {law.cell}") for law in laws if law.few]
    return thinned(1, few)


@pytest.mark.parametrize("law", laws())
def test_a_statement_keeps_its_law_in_a_few_studies(law):
    low, high = law.wide or (law.low, law.high)
    assert low <= np.nanmean(law.studied(law.few)) <= high
