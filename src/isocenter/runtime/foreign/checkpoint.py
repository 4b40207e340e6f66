"""Weights of other programs, opened without running code from them.

torch's own files are pickles, and a pickle can call any function. It is read by torch's unpickler of weights, which
knows tensors and plain values; added are NumPy's numbers, which stock nnU-Net v2 keeps in its logs, and nothing else.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.errors import TORCH_FILE_ERRORS, FormatError, IntegrityError, UsageError
from isocenter.files import refuse_growth
from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# A number's kind: truth, signed and unsigned, floating. An "object" could be anything.
NUMBERS = "biuf"
# Where older and newer NumPy keep what makes a number from its bytes.
SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
# Parameters that nnU-Net's modules hold a second time under another name.
AGAIN = re.compile(r"\.all_modules\.|^decoder\.encoder\.")
# What wrapping a network for several devices or for a compiler puts before its names.
WRAPPED = ("module.", "_orig_mod.")


def read_checkpoint(path: Path, trusted: Sequence[str] = ()) -> Mapping[str, Any]:
    """The content of a file of torch.save, as far as it is tensors, plain values, NumPy's numbers and what is trusted.

    trusted: "module.name" of functions and classes that may take part; they are imported
    Raises IntegrityError for a file that wants anything else, and says what; FormatError for no such file.
    """
    allowed: list[Any] = [(number, name) for name in SCALAR]
    allowed += [np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"] if np.dtype(code).kind in NUMBERS}]
    allowed += [(_imported(name), name) for name in trusted]
    try:
        refuse_growth(path)
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except TORCH_FILE_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise FormatError(f"cannot be read ({reason})", str(path), "Get the file again") from error
    if not isinstance(content, Mapping):
        raise FormatError("holds no checkpoint", str(path), "Give the file that the training wrote")
    return content


def without_repeats(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each parameter of a network of nnU-Net once, under the name of the layer that it belongs to."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        for prefix in WRAPPED:
            name = name.removeprefix(prefix)  # noqa: PLW2901 - the same name, unwrapped
        if not AGAIN.search(name):
            named[name] = tensor
    return named


def number(kind: Any, data: Any = b"") -> Any:
    """NumPy's maker of numbers, for numbers alone."""
    if not isinstance(kind, np.dtype) or kind.kind not in NUMBERS or not isinstance(data, bytes):
        raise UnpicklingError(f"a NumPy value of the kind {kind} is not a number")
    return np.frombuffer(data, dtype=kind, count=1)[0]


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UsageError(f"{name!r} names no module", "--trust", "Give it as module.name, as the refusal writes it")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"there is no {name!r} here ({error})", "--trust", "Install what it belongs to") from error


def _refused(path: Path, reason: str) -> IntegrityError:
    wanted = wanted_names(path, reason)
    if wanted:
        names = ", ".join(sorted(wanted))
        trust = " ".join(f"--trust {name}" for name in sorted(wanted))
        remedy = f"If you trust who made it: isocenter adopt ... {trust}. Otherwise do not use it"
        return IntegrityError(f"is not only weights and numbers: it would call {names}", str(path), remedy)
    return IntegrityError(f"is not only weights ({reason.strip().splitlines()[0]})", str(path), "Do not use it")


def wanted_names(path: Path, reason: str = "") -> Collection[str]:
    """Names that a pickled file would import beyond weights and numbers, found without running any of it."""
    try:
        listed = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except TORCH_FILE_ERRORS:
        listed = []
    known = {*SCALAR, *(f"numpy.dtypes.{type(np.dtype(one)).__name__}" for one in np.typecodes["All"]), "numpy.dtype"}
    named = re.findall(r"GLOBAL ([\w.]+)", reason)
    return {*listed, *named} - known
