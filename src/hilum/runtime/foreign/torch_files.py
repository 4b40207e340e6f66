"""Checkpoints of other programs, opened without running code from them; what they would call is named."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from hilum.errors import TORCH_FILE_ERRORS, FormatError, IntegrityError, UsageError
from hilum.lazy import torch
from hilum.networks import weight_loading
from hilum.networks.layouts.weight_layout import Content
from hilum.networks.weight_loading import NUMPY_SCALAR

# By which torch.save writes arrays of NumPy: they are made of bytes, and nothing is called.
NUMPY_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


def read_torch_file(path: Path, trusted: Sequence[str] = (), *, arrays: bool = False) -> Content:
    """The content of a file of torch.save, as far as it is tensors, plain values, NumPy's numbers and what is trusted.

    trusted: "module.name" of functions and classes that may take part; they are imported
    arrays:  whether NumPy's arrays may take part too
    Raises IntegrityError for a file that wants anything else, and says what; FormatError for no such file.
    """
    allowed = [(_import_allowed(name), name) for name in trusted]
    if arrays:
        make_array = np.empty(0).__reduce__()[0]
        allowed += [*((make_array, name) for name in NUMPY_ARRAYS), (np.ndarray, "numpy.ndarray")]
    try:
        content = weight_loading.plain_content(path, allowed)
    except UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except TORCH_FILE_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(f"cannot be read ({reason})", str(path), "Get the file again") from error
    if not isinstance(content, Mapping):
        raise FormatError("holds no checkpoint", str(path), "Give the file that the training wrote")
    return content


def _import_allowed(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UsageError(f"{name!r} names no module", "--trust", "Give it as module.name, as the refusal writes it")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"there is no {name!r} here ({error})", "--trust", "Install what it belongs to") from error


def _refusal(path: Path, reason: str) -> IntegrityError:
    called_names = pickled_imports(path, reason)
    if called_names:
        names = ", ".join(sorted(called_names))
        trust = " ".join(f"--trust {name}" for name in sorted(called_names))
        remedy = f"If you trust who made it: hilum adopt ... {trust}. Otherwise do not use it"
        return IntegrityError(f"is not only weights and numbers: it would call {names}", str(path), remedy)
    return IntegrityError(f"is not only weights ({reason.strip().splitlines()[0]})", str(path), "Do not use it")


def pickled_imports(path: Path, reason: str = "") -> Collection[str]:
    """Names that a pickled file would import beyond weights and numbers, found without running any of it."""
    try:
        listed = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except TORCH_FILE_ERRORS:
        listed = []
    allowed = {
        *NUMPY_SCALAR,
        *(f"numpy.dtypes.{type(np.dtype(one)).__name__}" for one in np.typecodes["All"]),
        "numpy.dtype",
    }
    named = re.findall(r"GLOBAL ([\w.]+)", reason)
    return {*listed, *named} - allowed
