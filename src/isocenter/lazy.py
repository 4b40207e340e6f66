"""torch, imported when it is first used: `--help`, reading and ONNX prediction do without it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
else:

    class _LazyModule(ModuleType):
        """Stands for a module and imports it at the first look at one of its names."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # inspection by tools must not import anything
                raise AttributeError(name)
            return getattr(importlib.import_module(self.__name__), name)

    torch = _LazyModule("torch")

__all__ = ["torch"]
