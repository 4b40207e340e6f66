"""Modules that are imported when they are first used: `--help`, reading and ONNX prediction do without torch.

What takes long to import, and only some of the work needs, comes from here under its own name.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cv2
    import pandas
    import SimpleITK
    import torch
    from scipy import fft, ndimage, optimize, sparse, spatial, special, stats
    from scipy.sparse import csgraph
    from torchsurv.loss import cox

if not TYPE_CHECKING:

    class _LazyModule(ModuleType):
        """Stands for a module and imports it at the first look at one of its names."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # inspection by tools must not import anything
                raise AttributeError(name)
            return getattr(importlib.import_module(self.__name__), name)

    SimpleITK = _LazyModule("SimpleITK")
    cox = _LazyModule("torchsurv.loss.cox")
    cv2 = _LazyModule("cv2")
    csgraph = _LazyModule("scipy.sparse.csgraph")
    fft = _LazyModule("scipy.fft")
    ndimage = _LazyModule("scipy.ndimage")
    optimize = _LazyModule("scipy.optimize")
    pandas = _LazyModule("pandas")
    sparse = _LazyModule("scipy.sparse")
    spatial = _LazyModule("scipy.spatial")
    special = _LazyModule("scipy.special")
    stats = _LazyModule("scipy.stats")
    torch = _LazyModule("torch")

__all__ = [
    "SimpleITK",
    "cox",
    "csgraph",
    "cv2",
    "fft",
    "ndimage",
    "optimize",
    "pandas",
    "sparse",
    "spatial",
    "special",
    "stats",
    "torch",
]
