"""Expressions of a MONAI bundle's configuration, interpreted part by part and never executed.

An expression is parsed, and its tree walked. Read are literals, references, arithmetic, comparisons, choices, indexing,
formatted text, dtypes, enumerations of MONAI, the functions of `FUNCTIONS`, and lambdas of these. Everything else is
refused by name: attributes, methods, other calls, comprehensions. What takes part stays small, whatever is written.
"""

from __future__ import annotations

import ast
import importlib
import operator
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import EnumMeta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from hilum.lazy import torch

# Windows and spacings, and lists of them, have some hundred letters.
LONGEST = 10_000
# Bits of a whole number, and powers: spacings and sizes have ten.
MOST_BITS, HIGHEST_POWER = 256, 64
REFERENCE = re.compile(r"@\w*(?:(?:#|::)\w*)*")
# As wide as a number in a text may be written.
FORMAT = re.compile(r"[<>^=+\- 0]{0,3}\d{0,2}(\.\d{1,2})?[bcdeEfFgGnosxX%]?")
WIDE = re.compile(r"%(?![sdfgi%]|\.?\d\d?[dfg])")
READER = re.compile(r"monai\.data\.(?:\w+\.)?(\w+Reader)")
NUMPY_NAME = re.compile(r"(?:np|numpy)\.(pi|inf|nan|bool_|float(?:16|32|64)|u?int(?:8|16|32|64))")
# By the name of what stands in the tree, that of Python's operator.
OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(operator, name.lower()) for name in ("Add", "Sub", "Mod", "Pow", "Invert", "Eq", "Lt", "Gt")},
    **{"Mult": operator.mul, "Div": operator.truediv, "FloorDiv": operator.floordiv, "Not": operator.not_},
    **{"BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor, "UAdd": operator.pos},
    **{"USub": operator.neg, "NotEq": operator.ne, "LtE": operator.le, "GtE": operator.ge, "Is": operator.is_},
    **{"IsNot": operator.is_not, "In": lambda one, many: one in many, "NotIn": lambda one, many: one not in many},
}


class UnreadError(ValueError):
    """A part of an expression that is not read, in its own words."""


def _counting(*ends: int) -> list[int]:
    """The numbers of a range, as far as a configuration needs any."""
    numbers = range(*ends)
    if len(numbers) > LONGEST:
        raise UnreadError(f"a range of {len(numbers)} numbers")
    return list(numbers)


# Of torch, what works on the numbers that it is given.
OF_NUMBERS = frozenset({"torch.abs", "torch.clamp", "torch.from_numpy", "torch.nan_to_num", "torch.where"})
# Where a model computes a person says, not the configuration; a bundle lies in files, which only `load` reads.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{one.__name__: one for one in (abs, bool, float, int, len, list, max, min, sorted, sum, tuple)},
    "range": _counting,
    "str": lambda value: _format(value, ""),
    "os.path.join": posixpath.join,
    "torch.device": lambda *_, **__: "cpu",
    "torch.cuda.is_available": lambda: False,
}


def evaluate_expression(text: str, look_up: Callable[[str], Any], further: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of an expression.

    look_up: of the name of a reference
    further: functions beside those of `FUNCTIONS`
    Raises UnreadError for what is not read, and what Python's operators raise for values that do not fit.
    """
    if len(text) > LONGEST:  # the parser takes some hundred bytes for each of its letters
        raise UnreadError(f"an expression of {len(text)} letters")
    names = {name: f"reference_{number}_" for number, name in enumerate(dict.fromkeys(REFERENCE.findall(text)))}
    try:
        tree = ast.parse(REFERENCE.sub(lambda found: names[found[0]], text), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UnreadError("no expression") from error
    values = {new: partial(look_up, name[1:]) for name, new in names.items()}
    return _Reading(values, {**FUNCTIONS, **further}).value(tree.body)


@dataclass(frozen=True, eq=False)
class Lambda:
    """A lambda of a configuration: called, its body is interpreted like any expression."""

    reading: _Reading
    arguments: tuple[str, ...]
    body: ast.expr

    def __call__(self, *given: Any) -> Any:
        """The body's value; ValueError for another number of arguments."""
        bound = {name: partial(_same, one) for name, one in zip(self.arguments, given, strict=True)}
        return _Reading({**self.reading.names, **bound}, self.reading.functions).value(self.body)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class _Reading:
    """The names that an expression may use: each a function that gives its value once it is needed."""

    names: Mapping[str, Callable[[], Any]]
    functions: Mapping[str, Callable[..., Any]] = field(repr=False)

    def value(self, node: Any) -> Any:
        """The value of a part of an expression."""
        match node:
            case None:
                return None
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.names:
                return self.names[node.id]()
            case ast.Name() | ast.Attribute():
                return _constant(ast.unparse(node))
            case ast.List():
                return [self.value(one) for one in node.elts]
            case ast.Tuple():
                return tuple(self.value(one) for one in node.elts)
            case ast.Dict() if None not in node.keys:
                return {self.value(key): self.value(one) for key, one in zip(node.keys, node.values, strict=True)}
            case ast.UnaryOp():
                return OPERATORS[type(node.op).__name__](self.value(node.operand))
            case ast.BinOp() if type(node.op).__name__ in OPERATORS:
                return _calculate(node.op, self.value(node.left), self.value(node.right))
            case ast.BoolOp():
                values = [self.value(one) for one in node.values]
                return next((one for one in values if bool(one) is isinstance(node.op, ast.Or)), values[-1])
            case ast.Compare():
                terms = pairwise(self.value(one) for one in (node.left, *node.comparators))
                results = [OPERATORS[type(kind).__name__](*two) for kind, two in zip(node.ops, terms, strict=True)]
                return results[0] if len(results) == 1 else all(results)
            case ast.IfExp():
                return self.value(node.body if self.value(node.test) else node.orelse)
            case ast.Subscript():
                return self.value(node.value)[_index(self.value(node.slice))]
            case ast.Slice():
                return slice(self.value(node.lower), self.value(node.upper), self.value(node.step))
            case ast.JoinedStr():
                return "".join(str(self.value(one)) for one in node.values)
            case ast.FormattedValue() if node.conversion == -1:
                return _format(self.value(node.value), str(self.value(node.format_spec) or ""))
            case ast.Call() if (name := ast.unparse(node.func)) in self.functions or name in OF_NUMBERS:
                function = getattr(torch, name.rpartition(".")[2]) if name in OF_NUMBERS else self.functions[name]
                named = {str(one.arg): self.value(one.value) for one in node.keywords}
                return _small(function(*(self.value(one) for one in node.args), **named))
            case ast.Lambda() if node.args.args and not (node.args.defaults or node.args.kwonlyargs):
                return Lambda(self, tuple(one.arg for one in node.args.args), node.body)
        raise UnreadError(ast.unparse(node))


def _constant(name: str) -> Any:
    """A dtype, a number of NumPy, a member of an enumeration of MONAI, or the name of one of its readers."""
    module, _, own = name.rpartition(".")
    if NUMPY_NAME.fullmatch(name):
        return getattr(np, own)
    if module == "torch" and isinstance(getattr(torch, own, None), torch.dtype):
        return getattr(torch, own)
    if re.fullmatch(r"monai\.utils(\.enums)?\.[A-Z]\w*", module):
        kind = getattr(importlib.import_module("monai.utils"), module.rpartition(".")[2], None)
        if isinstance(kind, EnumMeta) and own in kind.__members__:
            return kind.__members__[own].value
    if reader := READER.fullmatch(name):
        return reader[1]
    raise UnreadError(name)


def _calculate(kind: ast.operator, left: Any, right: Any) -> Any:
    """The outcome of an operator; UnreadError before it would fill the memory."""
    sizes = [len(one) for one in (left, right) if isinstance(one, str | bytes | list | tuple)]
    times = [one for one in (left, right) if isinstance(one, int)]
    if isinstance(kind, ast.Mult) and sizes and times:
        many = next(one for one in (left, right) if not isinstance(one, int))
        if sizes[0] * times[0] > LONGEST or any(not isinstance(one, str | int | float | None) for one in many):
            raise UnreadError(f"{times[0]} times a list or text")
    if isinstance(kind, ast.Pow) and not (isinstance(right, int | float) and abs(right) <= HIGHEST_POWER):
        raise UnreadError(f"a power of {right}")
    if isinstance(kind, ast.Mod) and isinstance(left, bytes | str):
        if WIDE.search(str(left)):
            raise UnreadError(f"a format of {left!r}")
        right = tuple(_plain(one) for one in right) if isinstance(right, tuple) else _plain(right)
    return _small(OPERATORS[type(kind).__name__](left, right))


def _small(value: Any) -> Any:
    """The value; UnreadError where what few letters have made would fill the memory."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UnreadError(f"a number of {value.bit_length()} bits")
    if isinstance(value, str | bytes | list | tuple) and len(value) > LONGEST:
        raise UnreadError(f"a list or text of {len(value)} parts")
    return value


def _index(index: Any) -> Any:
    """An index by which nothing becomes larger."""
    for one in index if isinstance(index, tuple) else (index,):
        if one is None or (isinstance(one, list) and len(one) > HIGHEST_POWER):
            raise UnreadError("an index that adds to what it is taken of")
    return index


def _plain(value: Any) -> str | int | float:
    """A value that is no longer as text than it is."""
    if not isinstance(value, str | int | float):
        raise UnreadError(f"a {type(value).__name__} as text")
    return value


def _format(value: Any, form: str) -> str:
    """A plain value as text."""
    if not FORMAT.fullmatch(form):
        raise UnreadError(f"a format {form!r}")
    return format(_plain(value), form)
