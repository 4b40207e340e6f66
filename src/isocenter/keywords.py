"""Functions whose TypeError for an unknown keyword names the right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
# Words of the command line that are keywords of Python, or have a longer name there.
IN_PYTHON = {"set": "assignments", "from": "start", "from_": "start", "all": "everything", "output": "out"}

# Flags of the command line that set one value of the plan.
IN_PLAN = {
    "covariates": 'assignments={"network.context": ["age", "sex"]}',
    "network": 'assignments={"network.name": "unet"}',
}
# How like a keyword a word is that was meant for it: "minuts" and "minutes" 0.92, "covariates" and "overwrite" 0.63.
LIKE = 0.7


def named_keywords(*more: type[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the function raises a TypeError that names the right keyword where it does not know one.

    more: typed dictionaries of further keywords, which the function takes as `**keywords`
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        known = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        known += [name for keywords in more for name in keywords.__annotations__]

        @functools.wraps(function)
        def called(*given: P.args, **named: P.kwargs) -> R:
            for name in named:
                if name not in known:
                    raise TypeError(f"{function.__name__}() has no keyword {name!r}. {_remedy(name, known)}.")
            return function(*given, **named)

        return called

    return decorated


def _remedy(name: str, known: list[str]) -> str:
    """The keyword that is meant, or all that there are."""
    if name in IN_PLAN and "assignments" in known:
        return f"Use {IN_PLAN[name]}"
    meant = [IN_PYTHON[name]] if IN_PYTHON.get(name) in known else get_close_matches(name, known, n=1, cutoff=LIKE)
    return f"Use {meant[0]}" if meant else f"Its keywords are {', '.join(sorted(known))}"
