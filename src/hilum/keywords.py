"""Keywords of a verb, declared once: the fields of a frozen dataclass, its options.

    @dataclass(frozen=True)
    class PlanOptions:
        \"\"\"Plan a training on DATA, with a reason for every decision.\"\"\"

        data: Annotated[str | Path, Setting("A folder or a table.", "DATA")]
        _: KW_ONLY
        folds: Annotated[int, Ge(0), Setting("Number of folds.", "K")] = 0

    @takes(PlanOptions)
    def plan(options: PlanOptions) -> Planned: ...

`plan(data, folds=5)` is called with these keywords, which type checkers and editors know from the class. The command
line, the documentation and the errors for an unknown keyword are made from the same fields, without importing the verb.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

from hilum.values import Setting, argument_kinds, setting_fields

P = ParamSpec("P")
R = TypeVar("R")
Options = TypeVar("Options")

# How like a keyword a word is that was meant for it: "minuts" and "minutes" 0.92, "covariates" and "overwrite" 0.63.
LIKE = 0.7
# Words of other programs, and the keywords that stand for them.
ELSEWHERE = {"output": "out", "network": 'assignments={"network.name": "unet"}'}


@functools.cache
def keywords_of(options: type) -> Mapping[str, Setting]:
    """{name: keyword} of a class of options: those given by their place, its own, and those that it shares."""
    own = [name for base in options.__mro__ for name in inspect.get_annotations(base)]
    known = {one.attribute: one for one in setting_fields.settings_in(options).values()}
    return {name: known[name] for name in sorted(known, key=lambda one: -1 if known[one].is_place else own.index(one))}


def takes(options: Callable[P, Options]) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """A decorator: the function gets options, and is called with their fields as arguments.

    Options with a method `in_force` hold, as that context, while the function runs.
    Numbers of NumPy become plain ones. Raises TypeError, which names the right keyword, for one that the options do not
    have; UsageError for a number beyond its limits, and for a value that the keyword does not take.
    """
    known = keywords_of(options)
    signature = inspect.signature(options)
    call_options: Callable[..., Options] = options

    def decorated(function: Callable[[Options], R]) -> Callable[P, R]:
        name = function.__name__

        @functools.wraps(function)
        def called(*given: P.args, **named: P.kwargs) -> R:
            for keyword in named:
                if keyword not in known:
                    raise TypeError(f"{name}() has no keyword {keyword!r}. {_remedy(keyword, known)}.")
            try:
                bound = signature.bind(*given, **named)
            except TypeError as error:
                raise TypeError(f"{name}(): {error}. It takes {', '.join(known)}") from None
            arguments = dict[str, Any]()
            for keyword, value in bound.arguments.items():
                plain = argument_kinds.plain_argument(value)
                arguments[keyword] = argument_kinds.fitting_argument(keyword, known[keyword].type, plain)
                known[keyword].refuse_beyond_limits(arguments[keyword])
                known[keyword].refuse_empty_path(arguments[keyword])
            made = call_options(**arguments)
            in_force: Callable[[], AbstractContextManager[None]] = getattr(made, "in_force", nullcontext)
            with in_force():
                return function(made)

        returned = inspect.get_annotations(function).get("return", inspect.Signature.empty)
        called.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]  # of any function
        called.__doc__ = f"{function.__doc__}\n\n{help_lines(known)}"
        return called

    return decorated


def help_lines(known: Mapping[str, Setting]) -> str:
    """A line for each keyword that has a text, for `help` in Python."""
    width = max(map(len, known), default=0) + 1
    return "\n".join(f"{f'{name}:':{width}} {one.help}" for name, one in known.items() if one.text)


def _remedy(name: str, known: Mapping[str, Setting]) -> str:
    """The keyword that is meant, by its name or that of its flag, or all that there are."""
    typed = {one.command_line_name.lstrip("-").replace("-", "_"): own for own, one in known.items()}
    word = name.removesuffix("_")  # of names that Python keeps for itself: from_
    if ELSEWHERE.get(word, "").partition("=")[0] in known:
        return f"Use {ELSEWHERE[word]}"
    close = get_close_matches(name, known, n=1, cutoff=LIKE)
    meant = [typed[word]] if word in typed else close
    return f"Use {meant[0]}" if meant else f"Its keywords are {', '.join(sorted(known))}"


def as_tuple(values: object) -> tuple[Any, ...]:
    """The values of a keyword that takes one or a list of them."""
    return tuple(values) if isinstance(values, list | tuple) else (values,)


def narrow_options(options: object, kind: type[Options]) -> Options:
    """Options that another class of options has too, as its value."""
    shared = {one.name: getattr(options, one.name) for one in fields(kind) if hasattr(options, one.name)}  # type: ignore[arg-type]  # a dataclass
    return kind(**shared)
