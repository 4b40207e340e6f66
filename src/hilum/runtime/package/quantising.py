"""The network of a package in 8 or 4 bits: windows that give the ranges, and the files that backends read.

An extra: `compress`, for NNCF and OpenVINO; ONNX Runtime quantises by itself.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from hilum import installation
from hilum.errors import HilumError, ResourceError
from hilum.lazy import onnx
from hilum.runtime import hardware
from hilum.runtime.model_assembly import Model
from hilum.runtime.package.backends.openvino import OpenVinoNetwork
from hilum.runtime.package.package_contents import ONNX_INT4, ONNX_INT8, OPENVINO_INT8
from hilum.runtime.windows.slide import Network
from hilum.values import Array, Case
from hilum.work_state import log

# (1, channels, *patch) and perhaps (1, entries) of a context.
Window = tuple[NDArray[np.float32], ...]
# The score of a network on cases that gave no ranges; higher is better.
Judge = Callable[[Network], float]
# Windows of one case: of a whole volume most are alike.
MOST_OF_A_CASE = 8
# Weights that share a scale in 4 bits.
GROUP = 32
# Layers that go back to float at most, one after the other, each after a round over the judging cases.
MOST_KEPT_LAYERS = 20


def refuse_missing_extra(*modules: str) -> None:
    """ResourceError where one of these modules is not installed, which the extra has."""
    if lacking := [name for name in modules if find_spec(name) is None]:
        problem = f"{lacking[0]} is not installed"
        raise ResourceError(problem, "hilum compress", installation.install_line("compress"))


@dataclass(eq=False)
class WindowRecorder:
    """A network that keeps some of the windows that pass it, sampled evenly: Vitter's reservoir.

    Vitter, ACM Trans Math Softw 1985, doi:10.1145/3147.3165
    """

    network: Network
    rng: np.random.Generator
    most: int = MOST_OF_A_CASE
    kept: list[Window] = field(default_factory=list)
    seen: int = 0

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, Array]:
        for number in range(len(batch[0])):
            place = self.seen if self.seen < self.most else int(self.rng.integers(self.seen + 1))
            self.seen += 1
            if place < self.most:
                self.kept[place : place + 1] = [tuple(np.array(one[number : number + 1]) for one in batch)]
        return self.network(*batch)


def record_windows(model: Model, cases: Sequence[Case], *, seed: int) -> list[Window]:
    """Windows of these cases as the model's network sees them: after its own preprocessing, cut as it cuts them.

    A case that cannot be predicted gives none, which the log says.
    Raises ResourceError where none gives any.
    """
    kept, ungated = list[Window](), replace(model, parts=replace(model.parts, guard=None))
    for number, case in enumerate(cases):
        recorder = WindowRecorder(model.networks.run, np.random.default_rng([seed, number]))
        try:
            np.asarray(ungated.with_run(recorder).predict(case).data)  # a volume passes only while it is read
        except HilumError as error:
            log.warning("%s gives no ranges: %s", case.id, error)
            continue
        kept += recorder.kept
    if not kept:
        raise ResourceError("no training case could be predicted", "ranges", "Look at the warnings above")
    return kept


class QuantisationFacts(TypedDict, total=False):
    """What was done for a network in fewer bits, or under `refused` why nothing could be.

    kept_in_float: its layers that stay as they are; lost_on_training_cases: of the primary metric
    """

    refused: str
    files: list[str]
    method: str
    bits_of_weights: int
    bits_of_convolutions: int | None
    kept_in_float: list[str]
    matrix_products: int
    because: str
    lost_on_training_cases: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Quantised:
    """A quantised network: the files that were written, and what a record keeps of how.

    facts: method, versions, layers that stay in float, and why
    """

    files: tuple[str, ...]
    facts: QuantisationFacts


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing of what libraries print: progress bars, advice about graphs that run well, and handlers of their own."""
    noise, root = StringIO(), logging.root
    disabled, handlers, level = root.manager.disable, root.handlers[:], root.level
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(noise), redirect_stderr(noise):
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


def import_nncf() -> Any:
    """NNCF without its reports to its maker: with NNCF_CI set before its import a stub stands in their place."""
    refuse_missing_extra("openvino", "nncf")
    if "nncf" not in sys.modules:
        os.environ["NNCF_CI"] = "1"
    import nncf  # 3 s, and only this needs it

    # Its own function sets the level of its handlers too, those of others among them.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def quantise_openvino(
    source: Path,
    windows: Sequence[Window],
    folder: Path,
    *,
    attends: bool = False,
    judge: Judge | None = None,
    loss: float = 0.0,
    heads: Sequence[str] = (),
) -> Quantised:
    """Quantise an ONNX file with NNCF, and write OpenVINO's graph into a folder.

    windows: that give the ranges of activations
    attends: whether it is a transformer: NNCF's settings for these are taken where they stay nearer to the network
    judge:   scores a network on training cases that gave no ranges; where more than `loss` is lost by it, layers that
             harm go back to float until that holds
    heads:   names of its outputs, for the judge
    """
    nncf, core = import_nncf(), _openvino().Core()
    model = core.read_model(source)
    names = [one.any_name for one in model.inputs]
    samples = [dict(zip(names, window, strict=True)) for window in windows]

    def quantised_with(kind: Any, overflow: Any = None) -> Any:
        with _silence():
            return nncf.quantize(
                model,
                nncf.Dataset(samples),
                subset_size=len(samples),
                model_type=kind,
                advanced_parameters=_advanced(nncf, overflow),
            )

    kind, overflow, facts = None, None, QuantisationFacts(bits_of_weights=8, kept_in_float=[])
    chosen = quantised_with(kind)
    if attends:
        for_transformers = quantised_with(nncf.ModelType.TRANSFORMER)
        apart = [_distance(core, one, model, windows) for one in (chosen, for_transformers)]
        if apart[1] < apart[0]:
            chosen, kind = for_transformers, nncf.ModelType.TRANSFORMER
    if not hardware.multiplies_bytes(hardware.processor_instructions()):
        narrower = quantised_with(kind, nncf.OverflowFix.ENABLE)
        apart = [_distance(core, one, model, windows) for one in (chosen, narrower)]
        if apart[1] < apart[0]:
            chosen, overflow = narrower, nncf.OverflowFix.ENABLE
            facts |= {"bits_of_weights": 7, "because": "sums of 8-bit products saturate on this processor"}
    if judge is not None:
        exact, ours = (judge(_compile(core, one, heads)) for one in (model, chosen))
        facts["lost_on_training_cases"] = exact - ours
        if exact - ours > loss:
            chosen = _with_accuracy_control(nncf, core, model, samples, judge, loss, heads, kind, overflow)
            facts["kept_in_float"] = _layers_in_float(model, chosen)
            facts["because"] = f"{exact - ours:.4f} was lost on training cases that gave no ranges"
    path = folder / Path(OPENVINO_INT8[0]).name
    _openvino().save_model(chosen, path, compress_to_fp16=False)
    # Of a small network a fifth of this file is its indentation.
    path.write_text(re.sub(r">\s+<", "><", path.read_text(encoding="utf-8")), encoding="utf-8")
    return Quantised(OPENVINO_INT8, {"method": "NNCF", **facts, **_versions("nncf", "openvino")})


def _advanced(nncf: Any, overflow: Any) -> Any:
    return None if overflow is None else nncf.AdvancedQuantizationParameters(overflow_fix=overflow)


def _with_accuracy_control(
    nncf: Any,
    core: Any,
    model: Any,
    samples: Sequence[Mapping[str, NDArray[np.float32]]],
    judge: Judge,
    loss: float,
    heads: Sequence[str],
    kind: Any,
    overflow: Any,
) -> Any:
    """The graph whose harmful layers are in float."""

    def score(compiled: Any, _: Any) -> tuple[float, None]:
        """What NNCF asks after each layer."""
        return judge(_Compiled(compiled, tuple(heads))), None

    restoring = nncf.AdvancedAccuracyRestorerParameters(max_num_iterations=MOST_KEPT_LAYERS)
    with _silence():
        return nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(list(samples)),
            nncf.Dataset(list(samples[:1])),  # the judge has cases of its own
            score,
            max_drop=loss,
            advanced_accuracy_restorer_parameters=restoring,
            subset_size=len(samples),
            model_type=kind,
            advanced_quantization_parameters=_advanced(nncf, overflow),
        )


def _openvino() -> Any:
    import openvino  # an extra

    return openvino


@dataclass(frozen=True)
class _Compiled:
    """What OpenVINO compiled, as a function of NumPy arrays."""

    compiled: Any
    heads: tuple[str, ...]

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        result = self.compiled([np.ascontiguousarray(one) for one in batch])
        return {head: np.array(result[n], dtype=np.float32) for n, head in enumerate(self.heads)}


def _compile(core: Any, model: Any, heads: Sequence[str]) -> Network:
    return OpenVinoNetwork(core, model, tuple(heads), {"INFERENCE_PRECISION_HINT": "f32"})


def _distance(core: Any, quantised: Any, model: Any, windows: Sequence[Window]) -> float:
    """Mean distance of a quantised graph's outputs from those of the graph in float, over these windows."""
    count = len(model.outputs)
    ours, exact = (_compile(core, one, [str(n) for n in range(count)]) for one in (quantised, model))
    total = [
        [np.abs(a - b).mean() for a, b in zip(ours(*w).values(), exact(*w).values(), strict=True)] for w in windows
    ]
    return float(np.mean(total))


def _layers_in_float(model: Any, quantised: Any) -> list[str]:
    """Names of the convolutions and matrix products of a graph whose inputs are not quantised."""
    kinds = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
    return sorted(
        one.get_friendly_name()
        for one in quantised.get_ops()
        if one.get_type_name() in kinds and one.input_value(0).get_node().get_type_name() != "FakeQuantize"
    )


def _versions(*packages: str) -> QuantisationFacts:
    return {"versions": hardware.package_versions(packages)}


def quantise_onnx(source: Path, windows: Sequence[Window], folder: Path) -> Quantised:
    """Quantise an ONNX file with ONNX Runtime: QDQ, static, weights by channel; 7 bits without 8-bit dot products."""
    bits = _quantise_static(source, windows, folder / Path(ONNX_INT8).name)
    facts: QuantisationFacts = {"method": "ONNX Runtime, static QDQ", "bits_of_weights": bits, "kept_in_float": []}
    return Quantised((ONNX_INT8,), {**facts, **_versions("onnxruntime")})


def quantise_onnx_weights(source: Path, windows: Sequence[Window], folder: Path) -> Quantised:
    """Quantise the weights of matrix products to 4 bits, in groups of 32; convolutions to 8 bits, with what they see.

    Raises ResourceError for a network without matrix products.
    """
    graph = onnx.load(source, load_external_data=False).graph
    known = {one.name for one in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and known & set(node.input)]
    if not products:
        raise ResourceError("the network has no matrix products of its weights", str(source), "Choose int8")
    path, bits = folder / Path(ONNX_INT4).name, None
    if any(node.op_type == "Conv" for node in graph.node):
        bits = _quantise_static(source, windows, path, ["Conv"])
    with _silence():
        from onnxruntime.quantization import matmul_nbits_quantizer  # gives the root logger a handler

        quantiser = matmul_nbits_quantizer.MatMulNBitsQuantizer(
            onnx.load(path if path.is_file() else source), bits=4, block_size=GROUP, is_symmetric=True
        )
        quantiser.process()
        quantiser.model.save_model_to_file(str(path))
    facts: QuantisationFacts = {
        "method": "ONNX Runtime, weights in groups of 32",
        "bits_of_weights": 4,
        "bits_of_convolutions": bits,
    }
    return Quantised((ONNX_INT4,), {**facts, "matrix_products": len(products), **_versions("onnxruntime")})


def _quantise_static(source: Path, windows: Sequence[Window], path: Path, kinds: Sequence[str] | None = None) -> int:
    """Write the file with nodes of these kinds, by default of all, quantised; return the bits of its weights."""
    from onnxruntime import quantization

    narrow = not hardware.multiplies_bytes(hardware.processor_instructions())
    prepared = path.with_name("prepared.onnx")
    with _silence():
        quantization.shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            path,
            _reader(source, windows),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=kinds,
            per_channel=True,
            reduce_range=narrow,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    prepared.unlink()
    return 7 if narrow else 8


def _reader(source: Path, windows: Sequence[Window]) -> Any:
    """Windows as ONNX Runtime reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    names = [one.name for one in onnx.load(source, load_external_data=False).graph.input]

    class Reader(CalibrationDataReader):
        """One window after the other."""

        left = iter([dict(zip(names, window, strict=True)) for window in windows])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """The next window by the names of inputs; None after the last."""
            return next(self.left, None)

    return Reader()
