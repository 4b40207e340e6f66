"""Matrices, of which `make test` takes some cases and `make test-all` each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def only(some: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases as parameters of a test; those that are not among `some` have the mark `whole`."""
    return [case if case in some else rarely(case) for case in cases]


def rarely(case: Any) -> Any:
    """A case, of one or several values, that only `make test-all` takes."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.whole)
