"""nnU-Net's `postprocessing.pkl`: of which labels only the largest piece stays. It is read without running anything."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import FormatError, IntegrityError
from isocenter.networks import NUMPY_SCALAR, numpy_number

# The one function that nnU-Net v2 writes there.
LARGEST = "nnunetv2.postprocessing.remove_connected_components.remove_all_but_largest_component_from_segmentation"
REMEDY = "Apply it with nnU-Net itself, if you trust it"


class _Steps(pickle.Unpickler):
    """Numbers, lists and the name of one function; the function itself is never imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file stands for; UnpicklingError for a name that is not expected."""
        full = f"{module}.{name}"
        if full == LARGEST:
            return LARGEST
        if full in NUMPY_SCALAR:
            return numpy_number
        if full == "numpy.dtype":
            return np.dtype
        if full == "_codecs.encode":  # how an older protocol writes bytes
            return _bytes
        raise pickle.UnpicklingError(f"it would call {full}")


def read_postprocessing(path: Path) -> tuple[tuple[int, ...], ...]:
    """Groups of label values of which, together, only the largest connected piece stays; applied in this order.

    Raises IntegrityError for a file that names any other function, FormatError for one that is none.
    """
    try:
        with path.open("rb") as file:
            functions, arguments = _Steps(file).load()
        return tuple(_group(*step) for step in zip(functions, arguments, strict=True))
    except pickle.UnpicklingError as error:
        raise IntegrityError(f"is not the one step that is known ({error})", str(path), REMEDY) from error
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise FormatError(f"cannot be read ({error})", str(path), "Give nnU-Net's postprocessing.pkl") from error


def _bytes(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in {codec}")
    return text.encode(codec)


def _group(function: Any, arguments: dict[str, Any]) -> tuple[int, ...]:
    if function != LARGEST or set(arguments) - {"labels_or_regions", "background_label"}:
        raise pickle.UnpicklingError(f"a step with {sorted(arguments)}")
    if int(arguments.get("background_label", 0)) != 0:
        raise pickle.UnpicklingError("a background that is not 0")
    return tuple(sorted(set(_values(arguments["labels_or_regions"]))))


def _values(given: Any) -> Iterator[int]:
    """A label, a region of several, or a list of either."""
    if isinstance(given, list | tuple):
        for value in given:
            yield from _values(value)
    else:
        yield int(given)
