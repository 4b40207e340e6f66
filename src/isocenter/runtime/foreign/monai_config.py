"""A MONAI bundle's configuration, of which only what we know is ever made, and no expression is ever evaluated.

https://docs.monai.io/en/stable/config_syntax.html
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isocenter.errors import FormatError, UsageError
from isocenter.files import DEEPEST, load_json
from isocenter.lazy import torch

# By the module that they come from; `torch.nn` beside them has nothing but layers.
ALLOWED = {
    "monai.networks.nets": frozenset(
        {
            "AttentionUnet",
            "BasicUNet",
            "BasicUNetPlusPlus",
            "DynUNet",
            "HighResNet",
            "SegResNet",
            "SegResNetDS",
            "SwinUNETR",
            "UNETR",
            "UNet",
            "VNet",
        }
    ),
    "monai.transforms": frozenset(
        {
            "CastToTyped",
            "CenterSpatialCropd",
            "CropForegroundd",
            "DivisiblePadd",
            "EnsureTyped",
            "NormalizeIntensityd",
            "Orientationd",
            "ResizeWithPadOrCropd",
            "Resized",
            "ScaleIntensityRangePercentilesd",
            "ScaleIntensityRanged",
            "ScaleIntensityd",
            "SpatialPadd",
            "Spacingd",
            "ThresholdIntensityd",
        }
    ),
}
# What is read or written, and where the channels lie, is our own affair.
LEFT_OUT = frozenset({"LoadImaged", "EnsureChannelFirstd", "AddChanneld", "AsChannelFirstd", "Identityd", "SaveImaged"})
OLDER = {"Unet": "UNet", "BasicUnet": "BasicUNet", "DynUnet": "DynUNet"}
# What MONAI's and torch's classes raise for arguments that they do not take, or for a package that is missing.
ARGUMENT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# The key under which a description names its class.
TARGET = "_target_"
REFERENCE = re.compile(r"@[\w#:]+$")
REMEDY = "Use it with MONAI itself, if you trust it"
# Names, values and lists after all references are followed: bundles of the model zoo have some hundred.
MOST_PARTS = 100_000
# Windows and spacings, and lists of them, have some hundred letters.
LONGEST_LITERAL = 10_000


@dataclass(frozen=True)
class Config:
    """The content of a configuration, and where the file lies."""

    content: Mapping[str, Any]
    where: str

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read JSON; FormatError where it is none."""
        try:
            content = load_json(path)
        except (OSError, ValueError) as error:
            raise FormatError(f"cannot be read ({error})", str(path), "Get the bundle again") from error
        if not isinstance(content, dict):
            raise FormatError("is not a configuration", str(path), "Get the bundle again")
        return cls(content, str(path))

    def described(self, value: Any) -> Any:
        """The same with references followed and literals read; what would be made is still a description.

        Raises UsageError for an expression that is more than a literal or a reference, FormatError for references
        that lead to themselves or unfold without end.
        """
        return _Unfolding(self).described(value, ())

    def made(self, described: Any) -> Any:
        """Make what a description stands for; UsageError for any class but those that are allowed."""
        if isinstance(described, Mapping):
            if "_target_" not in described:
                return {key: self.made(one) for key, one in described.items()}
            kind = self._kind(described)
            arguments = {key: self.made(one) for key, one in described.items() if not key.startswith("_")}
            try:
                return kind(**arguments)
            except ARGUMENT_ERRORS as error:
                name = described["_target_"]
                raise UsageError(
                    f"{name} cannot be made ({error})", self.where, "Use the MONAI it was made with"
                ) from error
        return [self.made(one) for one in described] if isinstance(described, list) else described

    def _kind(self, described: Mapping[str, Any]) -> Any:
        if described.get("_mode_", "default") != "default":
            raise UsageError(f"needs {described['_target_']} in the mode {described['_mode_']}", self.where, REMEDY)
        module, _, name = str(described["_target_"]).rpartition(".")
        name = OLDER.get(name, name)
        if module == "torch.nn":
            layer = getattr(torch.nn, name, None)
            if isinstance(layer, type) and issubclass(layer, torch.nn.Module):
                return layer
        for allowed, names in ALLOWED.items():
            if name in names and (not module or f"{module}.".startswith(f"{allowed}.")):
                return getattr(importlib.import_module(allowed), name)
        allowed_names = ", ".join(name for names in ALLOWED.values() for name in sorted(names))
        raise UsageError(f"needs {described['_target_']}; supported are {allowed_names}", self.where, REMEDY)


class _Unfolding:
    """One value of a configuration, its references followed: few of them can name each other a million times."""

    def __init__(self, config: Config) -> None:
        self._config, self._left = config, MOST_PARTS

    def described(self, value: Any, path: tuple[str, ...]) -> Any:
        """The value with what it refers to; path: the references on the way to it"""
        self._left -= 1
        if self._left < 0:
            raise FormatError("its references never end", self._config.where, "Get the bundle again")
        match value:
            case str():
                return self._of_text(value, path)
            case Mapping():
                return {key: one if key == TARGET else self.described(one, path) for key, one in value.items()}
            case Sequence():
                return [self.described(one, path) for one in value]
            case _:
                return value

    def _of_text(self, text: str, path: tuple[str, ...]) -> Any:
        body = text[1:].strip() if text.startswith("$") else text
        if REFERENCE.match(body):
            if body in path or len(path) > DEEPEST:
                raise FormatError(f"{body} refers to itself", self._config.where, "Get the bundle again")
            return self.described(self._looked_up(body[1:]), (*path, body))
        if text.startswith("%"):
            raise UsageError(f"refers to {text}, which lies outside the configuration", self._config.where, REMEDY)
        if not text.startswith("$"):
            return text
        if len(body) > LONGEST_LITERAL:  # the parser takes some hundred bytes for each of its letters
            raise FormatError(f"has a literal of {len(body)} letters", self._config.where, "Get the bundle again")
        try:
            return ast.literal_eval(body)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            problem = f"would run {text!r}: only literals and references are read"
            raise UsageError(problem, self._config.where, REMEDY) from error

    def _looked_up(self, name: str) -> Any:
        value: Any = self._config.content
        for part in name.replace("::", "#").split("#"):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise FormatError(f"has no {name!r}", self._config.where, "Get the bundle again") from error
        return value


def name_of(described: Any) -> str:
    """The class that a description names, without its module."""
    return str(described.get("_target_", "")).rpartition(".")[2] if isinstance(described, Mapping) else ""


def steps_of(described: Any, where: str) -> list[Mapping[str, Any]]:
    """The enabled steps of a Compose, but those that are our own affair."""
    if described is None:
        return []
    if name_of(described) != "Compose":
        raise UsageError(f"its steps are a {name_of(described) or type(described).__name__}", where, REMEDY)
    steps = [one for one in described.get("transforms", []) if name_of(one) not in LEFT_OUT]
    return [one for one in steps if not one.get("_disabled_")]


def columns_first(described: Any) -> bool:
    """Whether the LoadImaged of a Compose gives a picture as (column, row), as MONAI's readers do by themselves.

    https://docs.monai.io/en/stable/data.html#pilreader: `reverse_indexing`, which ITKReader takes the other way round
    """
    transforms = described.get("transforms", []) if isinstance(described, Mapping) else []
    loads = [one for one in transforms if name_of(one) == "LoadImaged" and not one.get("_disabled_")]
    if not loads or "reverse_indexing" not in loads[0]:
        return True
    turned = bool(loads[0]["reverse_indexing"])
    return not turned if "itk" in str(loads[0].get("reader")).lower() else turned
