"""A MONAI bundle's configuration, of which only what we know is ever made, and no expression is ever evaluated.

https://docs.monai.io/en/stable/config_syntax.html
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hilum.errors import FormatError, HilumError, IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.files.storage.structured_text import DEEPEST
from hilum.lazy import torch
from hilum.networks.layouts.weight_layout import Content
from hilum.runtime.foreign import monai_expressions, torch_files
from hilum.runtime.foreign.monai_expressions import REFERENCE, UnreadError

# A description of an object for MONAI: its class under `_target_`, and its arguments; also a part of metadata.
Described = Mapping[str, Any]
_names = re.compile(r"\w+").findall
# Networks whose outputs are of the whole image.
CLASSIFIERS = frozenset(
    _names(
        "DenseNet DenseNet121 DenseNet169 DenseNet201 DenseNet264 EfficientNetBN SEResNet50 SEResNet101 SEResNet152 "
        "SEResNext50 SEResNext101 TorchVisionFCModel"
    )
)
NETWORKS = _names(
    "AttentionUnet BasicUNet BasicUNetPlusPlus DiNTS DynUNet FlexibleUNet HighResNet SegResNet SegResNetDS SwinUNETR "
    "TopologyInstance UNETR UNet VNet"
)
TRANSFORMS = _names(
    "CastToTyped CenterSpatialCropd CropForegroundd DivisiblePadd EnsureTyped Lambdad NormalizeIntensityd Orientationd "
    "ResizeWithPadOrCropd Resized ScaleIntensityRangePercentilesd ScaleIntensityRanged ScaleIntensityd SpatialPadd "
    "Spacingd ThresholdIntensityd ToTensord"
)
# By the module that they come from; `torch.nn` beside them has nothing but layers.
ALLOWED = {"monai.networks.nets": CLASSIFIERS.union(NETWORKS), "monai.transforms": frozenset(TRANSFORMS)}
# What is read or written, where the channels lie, and what computes is our own affair.
LEFT_OUT = frozenset(
    _names(
        "LoadImaged EnsureChannelFirstd AddChanneld AsChannelFirstd Identityd SaveImaged SaveClassificationd ToDeviced"
    )
)
# What is looked at of a step that is left out: how a picture is read.
LOOKED_AT = ("keys", "reader", "reverse_indexing")
OLDER = {"Unet": "UNet", "BasicUnet": "BasicUNet", "DynUnet": "DynUNet", "Densenet121": "DenseNet121"}
# Arguments of earlier versions, where a class no longer takes them: their names now, or None where nothing is lost.
OLDER_ARGUMENTS = {"dimensions": "spatial_dims", "pos_embed": "proj_type", "img_size": None}
# What a person and our own steps decide, whatever a bundle says; nothing is fetched from a network.
DECIDED: Mapping[str, bool | str | None] = {
    **{"pretrained": False, "weights": None, "progress": False, "device": "cpu"},
    **{"track_meta": True, "data_type": "tensor"},
}
# Networks of torchvision that change their input where published weights were asked for.
CHANGES_INPUT = ("inception_v3", "googlenet")
# What MONAI's and torch's classes raise for arguments that they do not take, or for a package that is missing; and what
# an expression raises whose values do not fit.
ARGUMENT_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError),
)
# Keys under which a description names its class and says that nobody makes it, and that of the image.
TARGET, DISABLED, KEY = "_target_", "_disabled_", "image"
REMEDY = "Use it with MONAI itself, if you trust it"
# Letters of an expression, and of a library's reason, that a message shows.
LONGEST_SHOWN, LONGEST_REASON = 100, 200
# Names, values and lists after all references are followed: bundles of the model zoo have some hundred.
MOST_PARTS = 100_000


@dataclass(frozen=True)
class Config:
    """The content of a configuration, where the file lies, and the folder of its bundle."""

    content: Described
    where: str
    folder: Path

    @classmethod
    def from_file(cls, path: Path, folder: Path) -> Config:
        """Read JSON or YAML; FormatError where it is neither."""
        try:
            content = (
                structured_text.load_json(path)
                if path.suffix == ".json"
                else YAML(typ="safe", pure=True).load(path.read_text())
            )
        except (OSError, ValueError, YAMLError, RecursionError) as error:
            raise FormatError(f"cannot be read ({error_reason(error)})", str(path), "Get the bundle again") from error
        if not isinstance(content, dict):
            raise FormatError("is not a configuration", str(path), "Get the bundle again")
        return cls(content, str(path), folder)

    def resolve(self, value: Any) -> Any:
        """The same with references followed and expressions read; what would be made is still a description.

        Raises UsageError for an expression that is not read, FormatError for references that lead to themselves or
        unfold without end.
        """
        try:
            return _Unfolding(self).resolve(value, ())
        except RecursionError as error:
            raise FormatError("its values lie in each other without end", self.where, "Get the bundle again") from error

    def make(self, described: Any) -> Any:
        """Make what a description stands for; UsageError for any class but those that are allowed."""
        if isinstance(described, Mapping):
            if TARGET not in described:
                return {key: self.make(one) for key, one in described.items()}
            kind = self.kind(described)
            arguments = self._arguments(kind, described)
            try:
                with redirect_stdout(StringIO()):  # some say there what they recommend
                    return kind(**arguments)
            except ARGUMENT_ERRORS as error:
                problem = f"{described[TARGET]} cannot be made ({error_reason(error)})"
                raise UsageError(problem, self.where, "Use the MONAI it was made with") from error
        return [self.make(one) for one in described] if isinstance(described, list) else described

    def file(self, path: Any) -> Path:
        """A file that the configuration names; IntegrityError where it lies outside the bundle."""
        file = self.folder / str(path)
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise IntegrityError(f"names {path}, which lies outside the bundle", self.where, REMEDY)
        if not file.is_file():
            raise UsageError(f"has no {file.relative_to(self.folder)}", str(self.folder), "Get the bundle again, whole")
        return file

    def load_content(self, path: Any, **_: Any) -> Content:
        """Tensors, arrays and plain values of a file of the bundle, as torch.load gives them."""
        return torch_files.read_torch_file(self.file(path), arrays=True)

    def _arguments(self, kind: Any, described: Described) -> dict[str, Any]:
        """Arguments by their names of today, some of which are decided here."""
        taken, arguments = inspect.signature(kind).parameters, dict[str, Any]()
        for key, one in described.items():
            name = OLDER_ARGUMENTS[key] if key in OLDER_ARGUMENTS and key not in taken else key
            if name is not None and not str(key).startswith("_"):
                arguments[name] = DECIDED[name] if name in DECIDED else self.make(one)
        if described.get("model_name") in CHANGES_INPUT and (described.get("pretrained") or described.get("weights")):
            arguments.setdefault("transform_input", True)
        return arguments

    def kind(self, described: Described) -> Any:
        """The class that a description names; UsageError for any but those that are allowed."""
        target = str(described.get(TARGET, "")) if isinstance(described, Mapping) else ""
        if not target:
            raise UsageError(f"describes no class: {str(described)[:LONGEST_SHOWN]}", self.where, REMEDY)
        if described.get("_mode_", "default") != "default":
            raise UsageError(f"needs {target} in the mode {described['_mode_']}", self.where, REMEDY)
        module, name = target.rpartition(".")[0], class_name(described)
        if module == "torch.nn":
            layer = getattr(torch.nn, name, None)
            if isinstance(layer, type) and issubclass(layer, torch.nn.Module):
                return layer
        for allowed, names in ALLOWED.items():
            if name in names and (not module or f"{module}.".startswith(f"{allowed}.")):
                return getattr(importlib.import_module(allowed), name)
        refuse_script(described, self.where)
        problem = f"needs {target}, which is none of the classes of MONAI and layers of torch that are read"
        raise UsageError(problem, self.where, REMEDY)


class _Unfolding:
    """One value of a configuration, its references followed: few of them can name each other a million times."""

    def __init__(self, config: Config) -> None:
        self._config, self._left = config, MOST_PARTS

    def resolve(self, value: Any, path: tuple[str, ...]) -> Any:
        """The value with what it refers to; path: the references on the way to it"""
        self._left -= 1
        if self._left < 0:
            raise FormatError("its references never end", self._config.where, "Get the bundle again")
        match value:
            case str():
                return self._of_text(value, path)
            case Mapping():
                return self._of_description(value, path)
            case Sequence() if not isinstance(value, bytes):
                return [self.resolve(one, path) for one in value]
            case _:
                return value

    def _of_description(self, value: Described, path: tuple[str, ...]) -> Described:
        """Of a step that is disabled its name alone, of one that is our own affair little more."""
        kept = {TARGET: value[TARGET]} if TARGET in value else {}
        disabled = self.resolve(value.get(DISABLED, False), path)
        if disabled.strip().lower() == "true" if isinstance(disabled, str) else disabled:
            return {**kept, DISABLED: True}
        left_out = class_name(value) in LEFT_OUT
        parts = {key: one for key, one in value.items() if key in LOOKED_AT or not left_out}
        return {key: self.resolve(one, path) for key, one in parts.items() if key not in (TARGET, DISABLED)} | kept

    def _of_text(self, text: str, path: tuple[str, ...]) -> Any:
        body = text[1:].strip() if text.startswith("$") else text
        if text.startswith("%"):
            body = f"@{text[1:]}"
        if len(body) > 1 and REFERENCE.fullmatch(body):
            return self._follow(path, body[1:])
        if text.startswith("%"):
            raise UsageError(f"refers to {text}, which lies outside the configuration", self._config.where, REMEDY)
        if not text.startswith("$"):
            return text
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
        try:
            value = monai_expressions.evaluate_expression(
                body, partial(self._follow, path), {"torch.load": self._config.load_content}
            )
            self._left -= len(value) if isinstance(value, list | tuple) else 0
            return value
        except HilumError:
            raise
        except UnreadError as error:
            raise UsageError(f"would run {shown!r}: {error} is not read", self._config.where, REMEDY) from error
        except ARGUMENT_ERRORS as error:
            problem = f"has no value for {shown!r} ({error_reason(error)})"
            raise UsageError(problem, self._config.where, REMEDY) from error

    def _follow(self, path: tuple[str, ...], name: str) -> Any:
        if name in path or len(path) > DEEPEST:
            raise FormatError(f"@{name} refers to itself", self._config.where, "Get the bundle again")
        return self.resolve(self._looked_up(name), (*path, name))

    def _looked_up(self, name: str) -> Any:
        value: Any = self._config.content
        for part in name.replace("::", "#").split("#"):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise FormatError(f"has no {name!r}", self._config.where, "Get the bundle again") from error
        return value


def class_name(described: Any) -> str:
    """The class that a description names, without its module, as MONAI spells it today."""
    name = str(described.get(TARGET, "")).rpartition(".")[2] if isinstance(described, Mapping) else ""
    return OLDER.get(name, re.sub(r"(?<=[a-z])(D|Dict)$", "d", name))


def step_keys(step: Described) -> list[str]:
    """The keys of the values that a step is for."""
    keys = step.get("keys", [])
    return [str(one) for one in keys] if isinstance(keys, Sequence) and not isinstance(keys, str) else [str(keys)]


def refuse_script(described: Any, where: str) -> None:
    """UsageError for what describes a class that the bundle brings as a script."""
    target = str(described.get(TARGET, "")) if isinstance(described, Mapping) else ""
    if "." in target and target.partition(".")[0] not in ("monai", "torch", "ignite"):
        raise UsageError(f"needs {target}, code of its own, which is never run", where, REMEDY)


def error_reason(error: BaseException) -> str:
    """What went wrong in a library, in one line without addresses in memory."""
    text = re.sub(r" object at 0x[0-9a-fA-F]+", "", str(error).partition("\n")[0])[:LONGEST_REASON]
    if isinstance(error, KeyError | RecursionError) or not text:
        return f"nothing is called {text}" if isinstance(error, KeyError) else "it never ends"
    return text


def enabled_steps(described: Any, where: str) -> list[Described]:
    """The enabled steps of a Compose, but those that are our own affair."""
    if described is None:
        return []
    steps = described.get("transforms", []) if isinstance(described, Mapping) else None
    if class_name(described) != "Compose" or not isinstance(steps, list):
        raise UsageError(f"its steps are a {class_name(described) or type(described).__name__}", where, REMEDY)
    for one in steps:
        if not class_name(one):
            raise UsageError(f"has a step without a class: {str(one)[:LONGEST_SHOWN]}", where, REMEDY)
    return [one for one in steps if class_name(one) not in LEFT_OUT and not one.get(DISABLED)]


def loads_columns_first(described: Any, where: str) -> bool:
    """Whether the LoadImaged of a Compose gives a picture as (column, row), as MONAI's readers do by themselves.

    https://docs.monai.io/en/stable/data.html#pilreader: `reverse_indexing`, which ITKReader takes the other way round
    """
    transforms = described.get("transforms", []) if isinstance(described, Mapping) else []
    loads = [one for one in transforms if class_name(one) == "LoadImaged" and not one.get(DISABLED)]
    for one in loads:
        refuse_script({TARGET: one.get("reader", "")}, where)
    if loads and not any(KEY in step_keys(one) for one in loads):
        raise UsageError(f"reads {', '.join(step_keys(loads[0]))}, and no {KEY}", where, REMEDY)
    if not loads or "reverse_indexing" not in loads[0]:  # tiles of a slide come by rows, and nobody loads them here
        return bool(loads)
    turned = bool(loads[0]["reverse_indexing"])
    return not turned if "itk" in str(loads[0].get("reader")).lower() else turned
