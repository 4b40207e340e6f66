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

from isocenter.lazy import torch

# Windows and spacings, and lists of them, have some hundred letters.
LONGEST = 10_000
# Bits of a whole number, and powers: spacings and sizes have ten.
MOST_BITS, HIGHEST_POWER = 256, 64
REFERENCE = re.compile(r"@\w*(?:(?:#|::)\w*)*")
# As wide as a number in a text may be written.
FORMAT = re.compile(r"[<>^=+\- 0]{0,3}\d{0,2}(\.\d{1,2})?[bcdeEfFgGnosxX%]?")
READER = re.compile(r"monai\.data\.(?:\w+\.)?(\w+Reader)")
NUMPY_NAMES = frozenset(
    {"pi", "inf", "nan", "bool_", "float16", "float32", "float64", "uint8", "uint16", "uint32", "uint64"}
    | {"int8", "int16", "int32", "int64"}
)
OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class UnreadError(ValueError):
    """What of an expression is not read, in its own words."""


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
    **{one.__name__: one for one in (abs, bool, float, int, len, list, max, min, sorted, str, sum, tuple)},
    "range": _counting,
    "os.path.join": posixpath.join,
    "torch.device": lambda *_, **__: "cpu",
    "torch.cuda.is_available": lambda: False,
}


def evaluate(text: str, look_up: Callable[[str], Any], further: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of an expression.

    look_up: of the name of a reference
    further: functions beside those of `FUNCTIONS`
    Raises UnreadError for what is not read, and what Python's operators raise for values that do not fit.
    """
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        names.setdefault(found[0][1:], f"reference_{len(names)}_")
        return names[found[0][1:]]

    if len(text) > LONGEST:  # the parser takes some hundred bytes for each of its letters
        raise UnreadError(f"an expression of {len(text)} letters")
    try:
        tree = ast.parse(REFERENCE.sub(named, text), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UnreadError("no expression") from error
    values = {new: partial(look_up, name) for name, new in names.items()}
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

    def value(self, node: ast.AST | None) -> Any:
        """The value of a part of an expression."""
        match node:
            case None:
                return None
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.names:
                return self.names[node.id]()
            case ast.Name() | ast.Attribute():
                return _constant(_dotted(node))
            case ast.List():
                return [self.value(one) for one in node.elts]
            case ast.Tuple():
                return tuple(self.value(one) for one in node.elts)
            case ast.Dict() if None not in node.keys:
                return {self.value(key): self.value(one) for key, one in zip(node.keys, node.values, strict=True)}
            case ast.UnaryOp():
                return OPERATORS[type(node.op)](self.value(node.operand))
            case ast.BinOp() if type(node.op) in OPERATORS:
                return _calculated(node.op, self.value(node.left), self.value(node.right))
            case ast.BoolOp():
                return self._joined(node)
            case ast.Compare():
                return self._compared(node)
            case ast.IfExp():
                return self.value(node.body if self.value(node.test) else node.orelse)
            case ast.Subscript():
                return self.value(node.value)[_index(self.value(node.slice))]
            case ast.Slice():
                return slice(self.value(node.lower), self.value(node.upper), self.value(node.step))
            case ast.JoinedStr():
                return "".join(str(self.value(one)) for one in node.values)
            case ast.FormattedValue() if node.conversion == -1:
                return _formatted(self.value(node.value), str(self.value(node.format_spec) or ""))
            case ast.Call():
                return self._called(node)
            case ast.Lambda() if node.args.args and not (node.args.defaults or node.args.kwonlyargs):
                return Lambda(self, tuple(one.arg for one in node.args.args), node.body)
        raise UnreadError(f"{ast.unparse(node)}")

    def _joined(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for one in node.values:
            value = self.value(one)
            if bool(value) is isinstance(node.op, ast.Or):
                return value
        return value

    def _compared(self, node: ast.Compare) -> Any:
        result: Any = True
        terms = pairwise([node.left, *node.comparators])
        for kind, (left, right) in zip(node.ops, terms, strict=True):
            result = OPERATORS[type(kind)](self.value(left), self.value(right))
            if len(node.ops) > 1 and not result:
                return result
        return result

    def _called(self, node: ast.Call) -> Any:
        name = _dotted(node.func)
        function = getattr(torch, name.rpartition(".")[2]) if name in OF_NUMBERS else self.functions.get(name)
        if function is not None and all(one.arg for one in node.keywords):
            named = {str(one.arg): self.value(one.value) for one in node.keywords}
            return _small(function(*(self.value(one) for one in node.args), **named))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format" and not node.keywords:
            text = self.value(node.func.value)
            if isinstance(text, str) and re.fullmatch(r"(?:[^{}]|\{\})*", text):
                return text.format(*(_formatted(self.value(one), "") for one in node.args))
        raise UnreadError(f"a call of {ast.unparse(node.func)}")


def _dotted(node: ast.AST) -> str:
    """The name in a module, such as torch.float32; empty where it is none."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            before = _dotted(node.value)
            return f"{before}.{node.attr}" if before else ""
    return ""


def _constant(name: str) -> Any:
    """A dtype, a number of NumPy, a member of an enumeration of MONAI, or the name of one of its readers."""
    module, _, own = name.rpartition(".")
    if module in ("np", "numpy") and own in NUMPY_NAMES:
        return getattr(np, own)
    if module == "torch" and not own.startswith("_") and isinstance(getattr(torch, own, None), torch.dtype):
        return getattr(torch, own)
    if re.fullmatch(r"monai\.utils(\.enums)?\.[A-Z]\w*", module):
        kind = getattr(importlib.import_module("monai.utils"), module.rpartition(".")[2], None)
        if isinstance(kind, EnumMeta) and own in kind.__members__:
            return kind.__members__[own].value
    if reader := READER.fullmatch(name):
        return reader[1]
    raise UnreadError(name or "an attribute")


def _calculated(kind: ast.operator, left: Any, right: Any) -> Any:
    many = [one for one in (left, right) if isinstance(one, str | list | tuple)]
    times = [one for one in (left, right) if isinstance(one, int)]
    if isinstance(kind, ast.Mult) and many and times and len(many[0]) * max(times) > LONGEST:
        raise UnreadError(f"{max(times)} times a list or text")
    if isinstance(kind, ast.Pow) and not (isinstance(right, int | float) and abs(right) <= HIGHEST_POWER):
        raise UnreadError(f"a power of {right}")
    if isinstance(kind, ast.Mod) and isinstance(left, str):
        # Of a text that is filled in, the widths of its numbers are a format too.
        for stated in re.findall(r"%([^a-zA-Z%]*)", left):
            _formatted(0.0, stated)
    return _small(OPERATORS[type(kind)](left, right))


def _small(value: Any) -> Any:
    """The value; UnreadError where what few letters have made would fill the memory."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UnreadError(f"a number of {value.bit_length()} bits")
    if isinstance(value, str | list | tuple) and len(value) > LONGEST:
        raise UnreadError(f"a list or text of {len(value)} parts")
    return value


def _index(index: Any) -> Any:
    """An index by which nothing becomes larger."""
    for one in index if isinstance(index, tuple) else (index,):
        if one is None or (isinstance(one, list) and len(one) > HIGHEST_POWER):
            raise UnreadError("an index that adds to what it is taken of")
    return index


def _formatted(value: Any, form: str) -> str:
    """A plain value as text."""
    if not isinstance(value, str | int | float) or not FORMAT.fullmatch(form):
        raise UnreadError(f"a format {form!r} of a {type(value).__name__}")
    return format(value, form)
