"""Files of torch.save, opened without running code from them.

They are pickles, and a pickle can call any function. They are read by torch's unpickler of weights, which knows tensors
and plain values; added are NumPy's numbers, which stock nnU-Net v2 keeps in its logs, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from isocenter.files import refuse_growth
from isocenter.lazy import torch

# A number's kind: truth, signed and unsigned, floating. An "object" could be anything.
NUMBERS = "biuf"
# Where older and newer NumPy keep what makes a number from its bytes.
NUMPY_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def plain_content(path: Path, trusted: Sequence[Any] = ()) -> Any:
    """The content of a file, as far as it is tensors, plain values, NumPy's numbers and what is trusted.

    trusted: (function or class, its name) of what may take part
    Raises UnpicklingError for a file that wants anything else, and what torch raises for no such file.
    """
    allowed: list[Any] = [(numpy_number, name) for name in NUMPY_SCALAR]
    kinds = (np.dtype(code) for code in np.typecodes["All"])
    allowed += [np.dtype, *{type(kind) for kind in kinds if kind.kind in NUMBERS}, *trusted]
    refuse_growth(path)
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def numpy_number(kind: Any, data: Any = b"") -> Any:
    """NumPy's maker of numbers, for numbers alone."""
    if not isinstance(kind, np.dtype) or kind.kind not in NUMBERS or not isinstance(data, bytes):
        raise UnpicklingError(f"a NumPy value of the kind {kind} is not a number")
    return np.frombuffer(data, dtype=kind, count=1)[0]
