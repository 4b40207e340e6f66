"""Matrices, of which `make test` takes some cases and `make test-all` each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def only(some: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases as parameters of a test; those that are not among `some` have the mark `whole`."""
    return [case if case in some else rarely(case) for case in cases]


def thinned(count: int, cases: Iterable[Any], *, one_value: bool = False) -> list[Any]:
    """The cases as parameters of a test; those after the first few have the mark `whole`.

    one_value: a tuple among the cases is the value of one parameter, and not a value for each of several
    """
    every = list(cases)
    return every[:count] + [rarely((case,) if one_value else case) for case in every[count:]]


def rarely(case: Any) -> Any:
    """A case, of one or several values, that only `make test-all` takes."""
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.whole], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.whole)
