"""The headers of nibabel, without pydicom: it takes a quarter of a second, and only shows extensions of a header.

An extension that holds a DICOM data set stays the bytes that it is, unless pydicom was imported before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any


class _Refusal(MetaPathFinder):
    """Finds no pydicom for the thread that made it; any other thread may import it meanwhile."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise ModuleNotFoundError for pydicom; nothing is found otherwise."""
        if name == "pydicom" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(name=name)


@contextmanager
def _without_pydicom() -> Generator[None]:
    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)


with _without_pydicom():
    from nibabel.analyze import AnalyzeHeader
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
    from nibabel.spatialimages import HeaderDataError
    from nibabel.spm2analyze import Spm2AnalyzeHeader

__all__ = [
    "AnalyzeHeader",
    "HeaderDataError",
    "Nifti1Header",
    "Nifti1PairHeader",
    "Nifti2Header",
    "Nifti2PairHeader",
    "Spm2AnalyzeHeader",
]
