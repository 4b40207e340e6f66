"""Modules that are imported when they are first used: `--help`, reading and ONNX prediction do without torch.

What takes long to import, and only some of the work needs, comes from here under its own name.
"""

from __future__ import annotations

import ast
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cv2
    import lightning_fabric
    import monai
    import nibabel
    import onnx
    import onnxruntime
    import openslide
    import pandas
    import PIL.Image as pil_image  # noqa: N813 - a module
    import pydicom
    import pynetdicom
    import safetensors.torch as safetensors_torch
    import SimpleITK
    import skimage
    import torch
    from monai import visualize as monai_visualize
    from opacus import accountants as opacus_accountants
    from packaging import requirements as packaging_requirements
    from pydicom.sr import codedict
    from scipy import fft, ndimage, optimize, sparse, spatial, special, stats
    from scipy.sparse import csgraph
    from skimage import measure as skimage_measure
    from sklearn import cluster as sklearn_cluster
    from sklearn import linear_model
    from statsmodels.duration import hazard_regression as statsmodels_hazards
    from statsmodels.imputation import mice
    from statsmodels.stats import power as statsmodels_power
    from statsmodels.stats import proportion as statsmodels_proportion
    from torch.utils import flop_counter, tensorboard


class _LazyModule:
    """Stands for a module and imports it at the first look at one of its names.

    No `ModuleType`: its own failed look at a name takes longer than all of this, and each call through it comes here.
    """

    __slots__ = ("__name__",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "__name__", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspection by tools must not import anything
            raise AttributeError(name)
        return getattr(_imported(self.__name__), name)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # nobody replaces it as a whole
        """The names of the module once it is imported: pytest's `monkeypatch` puts back what it finds here."""
        module = sys.modules.get(self.__name__)
        return {} if module is None else module.__dict__

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_imported(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_imported(self.__name__), name)


def _imported(name: str) -> ModuleType:
    """The module, after a wait where another thread imports it; `import_module` alone takes twice as long."""
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):
        module = importlib.import_module(name)
    return module


if not TYPE_CHECKING:
    SimpleITK = _LazyModule("SimpleITK")
    codedict = _LazyModule("pydicom.sr.codedict")
    cv2 = _LazyModule("cv2")
    csgraph = _LazyModule("scipy.sparse.csgraph")
    fft = _LazyModule("scipy.fft")
    flop_counter = _LazyModule("torch.utils.flop_counter")
    sklearn_cluster = _LazyModule("sklearn.cluster")
    linear_model = _LazyModule("sklearn.linear_model")
    lightning_fabric = _LazyModule("lightning_fabric")
    mice = _LazyModule("statsmodels.imputation.mice")
    monai = _LazyModule("monai")
    monai_visualize = _LazyModule("monai.visualize")
    nibabel = _LazyModule("nibabel")
    ndimage = _LazyModule("scipy.ndimage")
    onnx = _LazyModule("onnx")
    onnxruntime = _LazyModule("onnxruntime")
    opacus_accountants = _LazyModule("opacus.accountants")
    openslide = _LazyModule("openslide")
    optimize = _LazyModule("scipy.optimize")
    packaging_requirements = _LazyModule("packaging.requirements")
    pil_image = _LazyModule("PIL.Image")
    pandas = _LazyModule("pandas")
    pydicom = _LazyModule("pydicom")
    pynetdicom = _LazyModule("pynetdicom")
    safetensors_torch = _LazyModule("safetensors.torch")
    skimage = _LazyModule("skimage")
    skimage_measure = _LazyModule("skimage.measure")
    sparse = _LazyModule("scipy.sparse")
    spatial = _LazyModule("scipy.spatial")
    special = _LazyModule("scipy.special")
    stats = _LazyModule("scipy.stats")
    statsmodels_hazards = _LazyModule("statsmodels.duration.hazard_regression")
    statsmodels_power = _LazyModule("statsmodels.stats.power")
    statsmodels_proportion = _LazyModule("statsmodels.stats.proportion")
    tensorboard = _LazyModule("torch.utils.tensorboard")
    torch = _LazyModule("torch")


def lazy_index(package: str) -> None:
    """Give a package's index a `__getattr__` and a `__dir__`: a name is imported when it is first asked for.

    A module of the package is imported when one of the module's own names is.

    The index lists its names once, as imports under `if TYPE_CHECKING`, which type checkers read and programs skip;
    `__all__` follows from them: constants, classes, then modules, and functions of the front door.
    So an index costs its reader nothing but the files that define what is asked for (PEP 562).
    """
    homes: dict[str, tuple[str, str]] = {}
    index = vars(sys.modules[package])

    def resolve(name: str) -> Any:
        """The value of a name of the package; AttributeError for one that the index does not list."""
        if not homes:
            homes.update(_imports_for_types(str(index["__file__"])))
        if name == "__all__":
            listed_names = {*homes, *({"__version__"} & index.keys())}
            return sorted(listed_names, key=lambda listed: (not listed.isupper(), not listed[:1].isupper(), listed))
        module, defined_as = homes.get(name, (package, name))
        if module == package:  # its import puts the module in this place
            whole = f"{package}.{defined_as}"
            if name.startswith("__") or find_spec(whole) is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return sys.modules.get(whole) or _LazyModule(whole)
        value = getattr(importlib.import_module(module), defined_as)
        index[name] = value  # the next look finds it without this function
        return value

    index.update(__getattr__=resolve, __dir__=lambda: sorted({*index, *resolve("__all__")}))


def _imports_for_types(index: str) -> dict[str, tuple[str, str]]:
    """{name: (module, name there)} of the imports under `if TYPE_CHECKING` in a file."""
    with open(index, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would take half of the time of this import
        tree = ast.parse(file.read())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (str(node.module), alias.name) for node in imports for alias in node.names}
