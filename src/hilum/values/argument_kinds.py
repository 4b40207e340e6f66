"""Arguments of a call in Python: numbers of NumPy become plain ones, and what a keyword does not take is named."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PosixPath, WindowsPath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.values import setting_fields
from hilum.values.plain_values import PlainValue
from hilum.values.setting_fields import UnloadedClass
from hilum.values.voxel_images import Image

TEXTS: Mapping[Any, str] = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    NoneType: "None",
    PlainValue: "what JSON holds",
}
# Names of kinds in a sentence, where the class has another one.
KINDS = {"DataFrameLike": "a DataFrame"}
NAMES_OF_VALUES: Mapping[type, str] = {str: "a text", bytes: "bytes", PosixPath: "a path", WindowsPath: "a path"}
MAKES_IMAGE = "hilum.image(array, spacing=...) makes an Image of an array"


def plain_argument(value: Any) -> Any:
    """The value with numbers and texts of NumPy, and paths of other classes, as Python's own, in lists and dicts."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        plain = value.item()
        return float(plain) if isinstance(plain, np.floating) else plain  # of more digits than Python's
    if isinstance(value, os.PathLike) and not isinstance(value, Path):
        return Path(os.fspath(value))
    if type(value) in (list, tuple):
        return type(value)(plain_argument(item) for item in value)
    if type(value) is dict:
        return {plain_argument(key): plain_argument(item) for key, item in value.items()}
    return value


def fitting_argument(name: str, kind: Any, value: Any) -> Any:
    """The value of a keyword, as a list where only lists are taken and it is one item of them.

    A path is a text where the keyword takes what JSON holds.
    kind: the type hint of the keyword
    Raises UsageError, which says what the keyword takes, for a value of another kind.
    """
    if fits_kind(value, kind):
        return value
    if any(fits_kind([value], member) for member in _members(kind)):
        return (value,)
    if PlainValue in setting_fields.parts_of(kind):
        with_texts = _paths_as_texts(value)
        if fits_kind(with_texts, kind):
            return with_texts
    remedy = f"It takes {' or '.join(_words_of(kind))}"
    if Image in setting_fields.parts_of(kind) and not isinstance(value, str | int | float | None):
        remedy = f"{remedy}; {MAKES_IMAGE}"
    raise UsageError(f"is {name_of(value)}", name, remedy)


def _paths_as_texts(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) in (list, tuple):
        return type(value)(_paths_as_texts(item) for item in value)
    if type(value) is dict:
        return {key: _paths_as_texts(item) for key, item in value.items()}
    return value


def fits_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that a type hint names; a hint that nothing here knows is met by any value."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits_kind(value, member) for member in inner)
    if origin is Annotated:
        return fits_kind(value, inner[0])
    if kind is Any:
        return True
    if origin is Literal:
        return type(value) in {type(choice) for choice in inner}
    if kind is PlainValue:
        return _is_plain(value)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(origin or kind, type) or origin is Callable or kind is object:
        return True
    if _is_mapping(kind):
        return isinstance(value, Mapping) and all(fits_kind(item, inner[1]) for item in value.values())
    if origin is tuple and Ellipsis not in inner:
        is_as_long = isinstance(value, list | tuple) and len(value) == len(inner)
        return is_as_long and all(fits_kind(item, member) for item, member in zip(value, inner, strict=True))
    if _is_list(kind):
        items = [one for one in inner if one is not Ellipsis]
        return isinstance(value, list | tuple) and all(fits_kind(item, items[0]) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(value, name) for name in kind.__annotations__)
    if issubclass(kind, UnloadedClass):
        return kind.__name__ in {base.__name__ for base in type(value).__mro__}
    return isinstance(value, kind)


def _is_plain(value: Any) -> bool:
    """Whether JSON and YAML hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _members(kind: Any) -> Iterator[Any]:
    """The types among which a hint chooses, or it alone."""
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    elif get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    else:
        yield kind


def _words_of(kind: Any) -> list[str]:
    """Each thing that a hint takes, in words."""
    members = list(_members(kind))
    words = list[str]()
    for member in members:
        origin = get_origin(member)
        if member is Path or (member is str and Path in members):
            words.append("a path")
        elif member in TEXTS:
            words.append(TEXTS[member])
        elif origin is Literal:
            words.append(f"one of {', '.join(map(str, get_args(member)))}")
        elif origin is Callable:
            words.append("a function")
        elif _is_list(member):
            items = _words_of(get_args(member)[0])
            words.append("a list of these" if set(items) <= set(words) else f"a list, each item {' or '.join(items)}")
        elif _is_mapping(member):
            words.append("a dict")
        else:
            name = str(getattr(member, "__name__", member))
            words.append(KINDS.get(name, _with_article(name)))
    return list(dict.fromkeys(words))


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def name_of(value: Any) -> str:
    """What a value is, in words: "an array of NumPy", "a list with an Image of PIL"."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, np.ndarray):
        return "an array of NumPy"
    kind = type(value)
    if kind in NAMES_OF_VALUES:
        return NAMES_OF_VALUES[kind]
    if isinstance(value, Mapping | list | tuple | set):
        items = value.values() if isinstance(value, Mapping) else value
        names = [name_of(item) for item in items]
        held = errors.list_phrase(dict.fromkeys(names), 2)
        return f"a {kind.__name__} with {held}" if names else f"an empty {kind.__name__}"
    module = kind.__module__.partition(".")[0]
    word = _with_article(kind.__name__)
    return word if module == "builtins" else f"{word} of {module}"
