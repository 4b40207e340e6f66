"""The kind of the outputs of an ONNX network: logits, or the probabilities of a softmax or sigmoid of its own.

The graph shows it where only steps that keep values follow the activation. Where the graph does not show it (a sigmoid
in other words, an operation that is not known), a trial does: outputs for noise that all lie within 0 and 1 are
probabilities. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.lazy import onnx
from hilum.values import Decision

# A probability of 0 or 1 has no logit.
LEAST = 1e-7


def class_logarithms(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithms of probabilities of classes, whose softmax gives these again."""
    return np.asarray(np.log(_clip_probabilities(likely)))


def log_odds_of_probabilities(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log odds of probabilities each by itself, whose sigmoid gives these again."""
    held = _clip_probabilities(likely)
    return np.asarray(np.log(held / (1 - held)))


def logarithm_of_logarithms(logarithms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits from logarithms of probabilities of classes, one of which may be that of 0."""
    return class_logarithms(np.exp(logarithms))


def log_odds_of_logarithms(logarithms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log odds from logarithms of probabilities each by itself."""
    return log_odds_of_probabilities(np.exp(logarithms))


def _clip_probabilities(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities that have logits; an infinite one is no probability, and stays no number."""
    return np.asarray(np.clip(np.where(np.isinf(likely), np.nan, likely), LEAST, 1 - LEAST))


NONE, SOFTMAX, SIGMOID = "none", "softmax", "sigmoid"
ACTIVATIONS = (NONE, SOFTMAX, SIGMOID)
# Logarithms of their probabilities, as a graph may show them.
LOG_SOFTMAX, LOG_SIGMOID = "logarithm of a softmax", "logarithm of a sigmoid"
LOGARITHMS = {SOFTMAX: LOG_SOFTMAX, SIGMOID: LOG_SIGMOID}
REMEDY = 'Say what its outputs are: --activation none, softmax or sigmoid, or "activation" in its description'
MADE_BY = {"Softmax": SOFTMAX, "LogSoftmax": LOG_SOFTMAX, "Sigmoid": SIGMOID, "HardSigmoid": SIGMOID}
# Operations whose outputs have no bounds.
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
NORMS = {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"}
LINEAR = LAYERS | NORMS
# Those after which probabilities are the same: each in its channel, or perhaps in another; and means of them.
IN_PLACE = {"Identity", "Cast", "CastLike", "Dropout", "Clip"}
MOVING = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth", "DequantizeLinear"}
CHOOSING = {"Slice", "Gather", "Split", "Concat", "Expand", "Tile", "Pad"}
MEANS = {"Resize", "Upsample", "Mean", "AveragePool", "GlobalAveragePool", "ReduceMean"}
KEEPING = IN_PLACE | MOVING | CHOOSING | MEANS
# Arithmetic, whose numbers decide what becomes of probabilities.
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Sum", "Neg", "Max", "Min", "Round", "Floor", "Reciprocal", "QuantizeLinear"}
SIZES = ("Shape", "Size")
# Nodes between the output and the activation; how far probabilities and their sums may be rounded (float16: 1e-3).
DEEPEST, ROUNDED = 100, 5e-3
# Standard deviations of the noise of a trial: as of z-scores, of HU, and of counts of a detector.
SPREADS = (1.0, 1e2, 1e4)

ToLogits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
TO_LOGITS: dict[str, ToLogits | None] = {
    NONE: None,
    SOFTMAX: class_logarithms,
    SIGMOID: log_odds_of_probabilities,
    LOG_SOFTMAX: logarithm_of_logarithms,
    LOG_SIGMOID: log_odds_of_logarithms,
}


@dataclass(frozen=True)
class GraphOutput:
    """An output as a graph shows it.

    kind:   the activation; None where the graph does not show it
    steps:  operations after it, from the output backwards
    moved:  whether classes of a softmax may no longer be the channels, or no longer be there
    behind: whether an unknown output is computed from nothing but probabilities
    """

    kind: str | None
    steps: tuple[str, ...] = ()
    moved: bool = False
    behind: bool = False

    @property
    def words(self) -> str:
        """The steps in their order."""
        return f", then {', '.join(self.steps[::-1])}" if self.steps else ""


@dataclass(frozen=True)
class NoiseTrial:
    """The outputs for noise: whether all lie within 0 and 1, depend on it, and add up to 1 over the channels."""

    within: bool
    differ: bool
    add_up: bool


def activation_of(
    path: Path, asked: str | None, *, name: str, exclusive: bool, outputs: Callable[[], Iterator[NDArray[np.float32]]]
) -> Decision:
    """One of `TO_LOGITS` for the output of this name of an ONNX file, and how it was found.

    asked:     what a person says; None where the file has to show it
    exclusive: whether the outputs are classes, of which one is the answer
    outputs:   gives outputs for noise, (batch, channels, ...) each; it is asked only where the graph is not enough
    Raises UsageError for regions that are a softmax, because no two of them could be likelier than not, and where
    probabilities are computed on in a manner that is not known.
    """
    if asked is not None:
        found = Decision(asked, because="asked for")
    else:
        shown = trace_output(onnx.load(path, load_external_data=False).graph, name)
        found = _by_graph(shown) or _by_trial(shown, try_outputs(outputs()), str(path), exclusive=exclusive)
    if found.value in (SOFTMAX, LOG_SOFTMAX) and not exclusive:
        problem = f"is described as regions, and the network ends in a softmax ({found.because}), which makes classes"
        raise UsageError(problem, str(path), 'Write "outputs": "classes", or export the network without it')
    return found


def _by_graph(shown: GraphOutput) -> Decision | None:
    """The activation that the graph shows; None where it shows none, or a softmax whose classes may have moved."""
    if shown.kind is None or (shown.kind == SOFTMAX and shown.moved):
        return None
    what = "no softmax and no sigmoid" if shown.kind == NONE else f"a {shown.kind}"
    return Decision(shown.kind, because=f"the graph shows {what}{shown.words}")


def _by_trial(shown: GraphOutput, tried: NoiseTrial | None, where: str, *, exclusive: bool) -> Decision:
    """The activation that outputs for noise show."""
    if shown.kind == SOFTMAX:
        # Where a part of a softmax is left each output is a probability by itself, and a region may be called by it.
        adds_up = exclusive or tried is None or tried.add_up
        sums = "" if tried is None else "; outputs for noise add up to 1" if tried.add_up else "; a part of it is left"
        return Decision(SOFTMAX if adds_up else SIGMOID, because=f"the graph shows a softmax{shown.words}{sums}")
    if tried is not None and tried.within and tried.differ:
        kind, sums = (SOFTMAX, " and add up to 1") if tried.add_up else (SIGMOID, "")
        return Decision(kind, because=f"measured: outputs for noise lie within 0 and 1{sums}")
    if shown.behind:
        problem = f"has a softmax or sigmoid{shown.words}, and outputs for noise that do not lie within 0 and 1"
        raise UsageError(problem, where, REMEDY)
    measured = "could not be measured" if tried is None else "do not lie within 0 and 1, or are all the same"
    return Decision(NONE, because=f"outputs for noise {measured}, and the graph shows no softmax and no sigmoid")


def try_outputs(outputs: Iterator[NDArray[np.float32]]) -> NoiseTrial | None:
    """A trial of outputs (batch, channels, ...) for noise; None where none of them is finite."""
    finite = [one for one in outputs if one.size and np.isfinite(one).all()]
    if not finite:
        return None
    low, high = min(float(one.min()) for one in finite), max(float(one.max()) for one in finite)
    sums = [np.abs(one.sum(axis=1) - 1).max() for one in finite if one.ndim > 1 and one.shape[1] > 1]
    within = low >= -ROUNDED and high <= 1 + ROUNDED
    differ = any(_varies(one) or not np.array_equal(one, finite[0]) for one in finite)
    return NoiseTrial(within, differ, within and bool(sums) and max(sums) <= ROUNDED)


def _varies(output: NDArray[np.float32]) -> bool:
    """Whether a channel is not the same number everywhere."""
    return bool(np.ptp(output, axis=(0, *range(2, output.ndim))).any())


def noise_windows(channels: int, patch: Sequence[int], batch: int) -> Iterator[NDArray[np.float32]]:
    """(batch, channels, *patch) windows of noise, always the same."""
    random = np.random.default_rng(0)
    for spread in SPREADS:
        yield (spread * random.standard_normal((batch, channels, *patch))).astype(np.float32)


def trace_output(graph: Any, name: str) -> GraphOutput:
    """Read from the graph what its output of this name is."""
    return _Graph.from_onnx(graph).trace(name)


@dataclass(frozen=True)
class _Graph:
    """Nodes by the names of their outputs, and the names of what does not depend on the image."""

    makers: dict[str, Any]
    constants: frozenset[str]
    known: dict[str, GraphOutput]

    @classmethod
    def from_onnx(cls, graph: Any) -> _Graph:
        constants = {one.name for one in (*graph.initializer, *graph.sparse_initializer)}
        for node in graph.node:  # each after those that it uses
            if node.op_type in SIZES or all(name in constants for name in node.input if name):
                constants |= set(node.output)
        return cls({name: node for node in graph.node for name in node.output}, frozenset(constants), {})

    def trace(self, name: str, depth: int = 0) -> GraphOutput:
        """One value as the graph shows it."""
        if name not in self.known:
            self.known[name] = self._trace_value(name, depth)
        return self.known[name]

    def _trace_value(self, name: str, depth: int) -> GraphOutput:
        node = self.makers.get(name)
        if node is None or depth > DEEPEST:
            return GraphOutput(None)
        kind = node.op_type
        if kind in MADE_BY:
            return GraphOutput(MADE_BY[kind], moved=kind == "Softmax" and _axis(node) != 1)
        if kind not in LINEAR | KEEPING | ARITHMETIC and kind != "Log":
            return GraphOutput(None)
        # Of most operations the other inputs are constants: weights, shapes, bounds.
        inputs = [self.trace(one, depth + 1) for one in node.input if one and one not in self.constants]
        kinds = {one.kind for one in inputs}
        behind = bool(inputs) and all(one.behind or one.kind in (SOFTMAX, SIGMOID) for one in inputs)
        steps = (kind, *(inputs[0].steps if inputs else ()))
        if kind in LINEAR:  # of bare probabilities it may be a mean of neighbours, or the last layer after sigmoids
            return GraphOutput(None if behind else NONE)
        if kind == "Log":
            return GraphOutput(LOGARITHMS.get(inputs[0].kind or ""), inputs[0].steps) if inputs else GraphOutput(None)
        if len(kinds) == 1 and None not in kinds and self._keeps(kind, node, kinds):
            moved = kind not in IN_PLACE or any(one.moved for one in inputs)
            return GraphOutput(inputs[0].kind, steps if kinds != {NONE} else (), moved)
        return GraphOutput(None, steps, behind=behind)

    def _keeps(self, kind: str, node: Any, kinds: set[str | None]) -> bool:
        """Whether outputs of an operation are what its inputs are."""
        if kind == "QuantizeLinear":
            return self._is_dequantized(node)
        if kinds == {NONE}:  # a clip of numbers without bounds may be a sigmoid by another name
            return kind != "Clip" and (kind in KEEPING or self._is_linear(kind, node))
        return kind in KEEPING

    def _is_linear(self, kind: str, node: Any) -> bool:
        """Whether arithmetic on numbers without bounds leaves them without bounds."""
        varying = [one for one in node.input if one and one not in self.constants]
        of_one = len(varying) == 1 and (kind == "Mul" or (kind == "Div" and varying[0] == node.input[0]))
        return kind in ("Add", "Sub", "Sum", "Neg") or of_one

    def _is_dequantized(self, node: Any) -> bool:
        """Whether what is quantised here is only used as the numbers that it stands for."""
        users = [one for one in self.makers.values() if set(node.output) & set(one.input)]
        return bool(users) and all(one.op_type == "DequantizeLinear" for one in users)


def _axis(node: Any) -> int:
    """Along which axis a softmax adds up to 1; without the attribute the last one, as from version 13 of ONNX on."""
    return next((int(one.i) for one in node.attribute if one.name == "axis"), -1)
