"""The export of a network as ONNX, and its comparison with torch."""

from __future__ import annotations

import copy
import keyword
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import onnxruntime, torch
from isocenter.runtime.package.backends.onnx import onnx_errors
from isocenter.runtime.package.contents import CONTEXT, each_head

if TYPE_CHECKING:
    from torch.nn import Module

INPUTS = ("image", CONTEXT)
# Of the largest output: float32 sums in another order differ by less.
TOLERANCE = 1e-3
# Images that go through together; none of them may be written into the file as the only number.
BATCHES = (1, 2)
# Bytes of weights in one file: protobuf holds no message of 2 GiB, https://protobuf.dev/programming-guides/encoding
LARGEST_INSIDE = 2**31 - 2**27
# What the exporter raises for operations that it cannot translate: its own class, and those of what it runs.
EXPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def write_onnx(
    module: Module,
    shape: tuple[int, ...],
    path: Path,
    *,
    context: int = 0,
    inside: int = LARGEST_INSIDE,
    names: Sequence[str] = ("pred",),
    refused: str = "",
) -> Mapping[str, Any]:
    """The module's network for any number of images (channels, *patch), compared with torch on random images.

    names:   of its outputs
    context: entries of the vector that it is given beside each image, as a second input; 0 for none
    inside: bytes of weights that the file itself may hold; more of them lie in a second file beside it
    refused: why the family cannot be exported, where its `Family` states it; the exporter's own words tell less
    What cannot be exported, or says something else there, leaves no file, and the record says why.
    """
    if refused:
        return {"exported": False, "because": refused}
    module = speakable(module.eval().cpu())
    weights = path.with_name(f"{path.name}.data")
    outside = sum(one.nbytes for one in module.state_dict().values()) > inside
    shapes = [shape, *([(context,)] if context else [])]
    errors: tuple[type[Exception], ...] = (*EXPORT_ERRORS, *onnx_errors())
    try:
        examples = tuple(torch.zeros(2, *one) for one in shapes)
        _export(module, examples, path, outside, list(names))
        inputs = ([torch.randn(n, *one, generator=torch.Generator().manual_seed(0)) for one in shapes] for n in BATCHES)
        apart = max(_apart(module, one, path) for one in inputs)
    except errors as error:
        _remove(path, weights)
        return {"exported": False, "because": _reason(error)}
    if not apart <= TOLERANCE:
        _remove(path, weights)
        return {"exported": False, "because": f"onnxruntime and torch differ by {apart:.2g} of the largest output"}
    record = {"exported": True, "largest_difference": apart, "of": "the largest output, on random images"}
    return {**record, **({"beside": [f"{path.parent.name}/{weights.name}"]} if weights.is_file() else {})}


def speakable(module: Module) -> Module:
    """A copy none of whose heads is called by a word of Python, such as `class`: torch writes code with their names."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if isinstance(part, torch.nn.ModuleDict):
            part._modules = {_spoken(name): one for name, one in part._modules.items()}
    for part in copied.modules():
        if isinstance(head := getattr(part, "head", None), str):
            part.head = _spoken(head)  # type: ignore[assignment]
    return copied


def _spoken(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _export(module: Module, examples: tuple[Any, ...], path: Path, outside: bool, names: list[str]) -> None:
    silent = StringIO()  # the exporter tells its steps on both streams, and its optimiser in a log
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    count = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module,
            examples,
            input_names=list(INPUTS[: len(examples)]),
            output_names=names,
            dynamic_shapes=tuple({0: count} for _ in examples),
            dynamo=True,
            verbose=False,
        )
        _strip(program.model)
        program.save(path, external_data=outside)


def _strip(model: Any) -> None:
    """Take away where each node comes from: stacks of calls, with paths of the maker's machine."""
    for graph in (model.graph, *model.functions.values()):
        for part in (model, graph, *graph.all_nodes(), *graph.inputs):
            part.metadata_props.clear()
            part.doc_string = None
        for node in graph.all_nodes():
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def _apart(module: Module, inputs: Sequence[Any], path: Path) -> float:
    """The largest difference between onnxruntime and torch, as a share of the largest output."""
    with torch.inference_mode():
        outputs = module(*inputs)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {name: one.numpy() for name, one in zip(INPUTS, inputs, strict=False)}
    pairs = zip(each_head(outputs), session.run(None, feed), strict=True)
    return max(_share(found, expected.numpy()) for expected, found in pairs)


def _share(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(outputs - expected).max() / max(float(np.abs(expected).max()), 1e-6))


def _reason(error: BaseException) -> str:
    """The first line of what lies behind it all: the exporter wraps it in advice on its own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
