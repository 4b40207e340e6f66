"""The export of a network as ONNX, and its comparison with torch."""

from __future__ import annotations

import copy
import keyword
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum.lazy import onnxruntime
from hilum.networks import factory, network_parts
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import OnnxRecord
from hilum.runtime.package import package_contents
from hilum.runtime.package.backends import onnx
from hilum.runtime.package.package_contents import CONTEXT
from hilum.runtime.torch_networks import WatchedNetwork
from hilum.tasks.shared.averages import BETWEEN, EACH, WITHIN

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
) -> OnnxRecord:
    """The module's network for any number of images (channels, *patch), compared with torch on random images.

    names:   of its outputs
    context: entries of the vector that it is given beside each image, as a second input; 0 for none
    inside: bytes of weights that the file itself may hold; more of them lie in a second file beside it
    refused: why the family cannot be exported, where its `Family` states it; the exporter's own words tell less
    What cannot be exported, or says something else there, leaves no file, and the record says why.
    """
    if refused:
        return {"exported": False, "because": refused}
    shapes = [shape, *([(context,)] if context else [])]

    def random_inputs(count: int) -> list[Tensor]:
        return [torch.randn(count, *one, generator=torch.Generator().manual_seed(0)) for one in shapes]

    inputs = GraphInputs(INPUTS[: len(shapes)], random_inputs, BATCHES)
    return write_graph(module, inputs, path, names, inside=inside)


@dataclass(frozen=True)
class GraphInputs:
    """What a graph is given.

    names:  of its inputs
    random_inputs: a number of images or tiles to random inputs with so many along `axis`
    counts: that are compared with torch; the last is the example of the export
    step:   of which all numbers along that axis are multiples
    """

    names: Sequence[str]
    random_inputs: Callable[[int], list[Tensor]]
    counts: Sequence[int]
    axis: int = 0
    step: int = 1


def write_graph(
    module: Module, inputs: GraphInputs, path: Path, names: Sequence[str], *, inside: int = LARGEST_INSIDE
) -> OnnxRecord:
    """The module for such inputs; the rest as of `write_onnx`."""
    module = rename_keyword_heads(module.eval().cpu())
    weights = path.with_name(f"{path.name}.data")
    outside = sum(one.nbytes for one in module.state_dict().values()) > inside
    errors: tuple[type[Exception], ...] = (*EXPORT_ERRORS, *onnx.onnx_errors())
    try:
        _export(module, inputs, path, outside, list(names))
        apart = max(
            _apart(module, dict(zip(inputs.names, inputs.random_inputs(n), strict=True)), path) for n in inputs.counts
        )
    except errors as error:
        _remove(path, weights)
        return {"exported": False, "because": _reason(error)}
    if not apart <= TOLERANCE:
        _remove(path, weights)
        return {"exported": False, "because": f"onnxruntime and torch differ by {apart:.2g} of the largest output"}
    record: OnnxRecord = {"exported": True, "largest_difference": apart, "of": "the largest output, on random images"}
    if weights.is_file():
        record["beside"] = [f"{path.parent.name}/{weights.name}"]
    return record


def rename_keyword_heads(module: Module) -> Module:
    """A copy none of whose heads is called by a word of Python, such as `class`: torch writes code with their names."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if isinstance(part, torch.nn.ModuleDict):
            part._modules = {_spoken(name): one for name, one in part._modules.items()}
    for part in copied.modules():
        if isinstance(head := getattr(part, "head", None), str):
            vars(part)["head"] = _spoken(head)
    return copied


def _spoken(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _export(module: Module, inputs: GraphInputs, path: Path, outside: bool, names: list[str]) -> None:
    silent = StringIO()  # the exporter tells its steps on both streams, and its optimiser in a log
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    count = torch.export.Dim("batch" if inputs.axis == 0 else "blocks", min=1)
    count = count if inputs.step == 1 else inputs.step * count
    with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module,
            tuple(inputs.random_inputs(inputs.counts[-1])),
            input_names=list(inputs.names),
            output_names=names,
            dynamic_shapes=tuple({inputs.axis: count} for _ in inputs.names),
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


def _apart(module: Module, inputs: Mapping[str, Tensor], path: Path) -> float:
    """The largest difference between onnxruntime and torch, as a share of the largest output."""
    with torch.inference_mode():
        outputs = module(*inputs.values())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {name: one.numpy() for name, one in inputs.items()}
    pairs = zip(package_contents.tensors_by_head(outputs), session.run(None, feed), strict=True)
    return max(_share(found, expected.numpy()) for expected, found in pairs)


def _share(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(outputs - expected).max() / max(float(np.abs(expected).max()), 1e-6))


def _reason(error: BaseException) -> str:
    """The first line of what lies behind it all: the exporter wraps it in advice on its own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@dataclass(frozen=True)
class FurtherOutputs:
    """Outputs that an exported network computes beside its heads.

    at:       the part of the first network whose output is the deepest map; empty where nobody needs it
    pooled:   whether its features are an output
    method:   of uncertainty, and `heads` those that state it
    in_network: the uncertainty of one network, as in `WatchedNetwork`
    differ:   that between several, as in `AveragedNetwork`
    each:     heads of which what each of several says is an output too
    """

    at: str = ""
    pooled: bool = False
    method: str = ""
    heads: tuple[str, ...] = ()
    in_network: Callable[..., Mapping[str, Tensor]] | None = None
    differ: Callable[..., Mapping[str, Tensor]] | None = None
    each: tuple[str, ...] = ()

    @classmethod
    def from_model(cls, model: Model) -> FurtherOutputs:
        """The outputs that a model's way to predict asks for."""
        at, run = factory.family_of(model.networks.architectures[0]["name"]).features, model.networks.run
        gated = model.guard is not None and model.guard.features is not None
        further = cls(at, bool(at) and (gated or model.task.answers_features))
        if isinstance(run, WatchedNetwork) and run.further is not None:
            heads = tuple(cast("Any", run.further).args[0].heads)
            return replace(further, method=model.uncertainty.name, heads=heads, in_network=run.further)
        if (average := model.networks.average) is None:
            return further
        further = replace(further, each=tuple(model.task.folds_by_head))
        if (differ := average.differ) is None:
            return further
        return replace(further, method=model.uncertainty.name, heads=tuple(differ.kinds), differ=differ)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs after the heads."""
        states = [f"{head}{end.replace(':', '_')}" for head in self.heads for end in (WITHIN, BETWEEN)]
        names_of_each = [f"{head}{EACH.replace(':', '_')}" for head in self.each]
        return (*states, *names_of_each, *(["features"] if self.pooled else []))

    @property
    def record(self) -> OnnxRecord:
        """The entries of a package's record."""
        record = OnnxRecord()
        if self.heads:
            record["uncertainty"] = {"method": self.method, "heads": list(self.heads)}
        if self.each:
            record["each"] = list(self.each)
        if self.pooled:
            record["features"] = True
        return record


class WithFurther(nn.Module):
    """(batch, channels, *patch) to a tensor for each head, and what `further` names after them.

    network: as `every_head_network` makes it
    heads:   of the task
    shares:  how much each of several networks counts
    """

    def __init__(
        self, network: nn.Module, heads: Sequence[str], further: FurtherOutputs, shares: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.heads, self.further, self.shares = tuple(heads), further, shares

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the heads' outputs, then the others."""
        views, own_further = list[Mapping[str, Tensor]](), self.further
        with ExitStack() as hooks:
            for network in self.network.networks if own_further.differ is not None or own_further.each else ():
                hooks.enter_context(
                    network_parts.hook_part(network, lambda _, output: views.append(self._rename_outputs(output)))
                )
            inputs = (images,) if context is None else (images, context)
            if not own_further.at:
                outputs, features = package_contents.tensors_by_head(self.network(*inputs)), None
            else:
                last, first = own_further.in_network is not None, self.network.networks[0]
                features = network_parts.compute_features(
                    self.network, *inputs, at=own_further.at, last=last, within=first
                )
                outputs = package_contents.tensors_by_head(features.outputs)
        uncertain: Mapping[str, Tensor] = {}
        if own_further.differ is not None:
            uncertain = own_further.differ(views, self.shares)
        elif own_further.in_network is not None and features is not None:
            named = dict(zip(self.heads, outputs, strict=True))
            uncertain = own_further.in_network(
                replace(features, outputs=named, inputs=self._rename_outputs(features.inputs))
            )
        further = [uncertain[f"{head}{end}"] for head in own_further.heads for end in (WITHIN, BETWEEN)]
        further += [torch.cat([one[head] for one in views], dim=1) for head in own_further.each]
        return (*outputs, *further, *([features.pooled] if own_further.pooled and features is not None else []))

    def _rename_outputs(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by the task's names: an exported network calls no head by a word of Python."""
        return {head: outputs[name] for head in self.heads for name in (head, f"{head}_") if name in outputs}
