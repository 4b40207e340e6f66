"""Keywords of a verb, declared once: the fields of a frozen dataclass, its options.

    @dataclass(frozen=True)
    class PlanOptions:
        \"\"\"Plan a training on DATA, with a reason for every decision.\"\"\"

        data: Annotated[str | Path, Flag("A folder or a table.", "DATA")]
        _: KW_ONLY
        folds: Annotated[int, Flag("Number of folds.", "K", least=0)] = 0

    @takes(PlanOptions)
    def plan(options: PlanOptions) -> Planned: ...

`plan(data, folds=5)` is called with these keywords, which type checkers and editors know from the class. The command
line, the documentation and the errors for an unknown keyword are made from the same fields, without importing the verb.
"""

from __future__ import annotations

import builtins
import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin

from isocenter.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
Options = TypeVar("Options")

# How like a keyword a word is that was meant for it: "minuts" and "minutes" 0.92, "covariates" and "overwrite" 0.63.
LIKE = 0.7
# Words of other programs, and the keywords that stand for them.
ELSEWHERE = {"output": "out", "network": 'assignments={"network.name": "unet"}'}


@dataclass(frozen=True)
class Flag:
    """Words and spelling of a keyword, beside the type and the default of its field.

    text:    one sentence
    metavar: of its value; a switch has none
    name:    on the command line, where it is not that of the field
    path:    of a path that the command line chooses by itself, as "<verb>-<name>"
    repeats: the flag can be given several times, an argument several times in a row
    values:  the number of words that follow the flag
    least, most: limits of a number
    read:    from what was typed to the value in Python, where they differ
    A keyword without a text has no flag on the command line.
    """

    text: str = ""
    metavar: str = ""
    name: str = ""
    path: str = ""
    repeats: bool = False
    values: int = 1
    least: int | None = None
    most: int | None = None
    read: Callable[[Any], Any] | None = None

    @property
    def help(self) -> str:
        """The sentence, with the path that is chosen where none is given."""
        return f"{self.text.removesuffix('.')}; by default ./{self.path}." if self.path else self.text


@dataclass(frozen=True)
class Keyword:
    """One field of options, resolved.

    kind:     its type
    is_place: whether it is given by its place in a call
    """

    name: str
    kind: Any
    default: Any
    flag: Flag
    is_place: bool

    @property
    def is_required(self) -> bool:
        """Whether a call without it is refused."""
        return self.default is MISSING

    @property
    def command_line_name(self) -> str:
        """Its name on the command line: DATA, or --leave-out."""
        if self.is_place and not self.flag.name:
            return self.flag.metavar
        return self.flag.name or f"--{self.name.replace('_', '-')}"

    def refuse_beyond_limits(self, value: Any) -> None:
        """UsageError for a number below the lowest or above the highest."""
        if not isinstance(value, int | float):
            return
        for limit, is_beyond in ((self.flag.least, False), (self.flag.most, True)):
            if limit is not None and (value > limit if is_beyond else value < limit):
                side = "above" if is_beyond else "below"
                raise UsageError(
                    f"{value} is {side} {limit}",
                    self.command_line_name,
                    f"Give at {'most' if is_beyond else 'least'} {limit}",
                )


@functools.cache
def keywords_of(options: type) -> Mapping[str, Keyword]:
    """{name: keyword} of a class of options: those given by their place, its own, and those that it shares."""
    hints = {name: hint for base in reversed(options.__mro__) for name, hint in _hints(base).items()}
    own = [name for base in options.__mro__ for name in inspect.get_annotations(base)]
    known = fields(options)
    resolved = [_resolve(one.name, hints[one.name], _default(one), not one.kw_only) for one in known if one.init]
    return {one.name: one for one in sorted(resolved, key=lambda one: -1 if one.is_place else own.index(one.name))}


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _resolve(name: str, hint: Any, default: Any, is_place: bool) -> Keyword:
    kind, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    flag = next((one for one in more if isinstance(one, Flag)), Flag())
    return Keyword(name, kind, default, flag, is_place)


def _hints(base: type) -> dict[str, Any]:
    """The types of the fields that a class itself declares."""
    names = _Names(vars(inspect.getmodule(base) or builtins))
    return inspect.get_annotations(base, globals={}, locals=names, eval_str=True)


class _Names(dict[str, Any]):
    """The names in a module; one that only type checkers import, because it needs torch, stands for any object."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return object


def takes(options: Callable[P, Options]) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """A decorator: the function gets options, and is called with their fields as arguments.

    Options with a method `in_force` hold, as that context, while the function runs.
    Raises TypeError, which names the right keyword, for one that the options do not have; UsageError for a number
    beyond its limits.
    """
    known = keywords_of(options)
    signature = inspect.signature(options)

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
            for keyword, value in bound.arguments.items():
                known[keyword].refuse_beyond_limits(value)
            made = options(*given, **named)
            in_force: Callable[[], AbstractContextManager[None]] = getattr(made, "in_force", nullcontext)
            with in_force():
                return function(made)

        returned = inspect.get_annotations(function).get("return", inspect.Signature.empty)
        called.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]  # of any function
        called.__doc__ = f"{function.__doc__}\n\n{help_lines(known)}"
        return called

    return decorated


def help_lines(known: Mapping[str, Keyword]) -> str:
    """A line for each keyword that has a text, for `help` in Python."""
    width = max(map(len, known), default=0) + 1
    return "\n".join(f"{f'{name}:':{width}} {one.flag.help}" for name, one in known.items() if one.flag.text)


def _remedy(name: str, known: Mapping[str, Keyword]) -> str:
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
