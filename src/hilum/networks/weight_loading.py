"""Initial weights of a network from published weights or a file, as far as names and shapes agree."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from safetensors import SafetensorError

from hilum import errors
from hilum.errors import TORCH_FILE_ERRORS, IntegrityError, PlanError, ResourceError
from hilum.files.storage import packed_files
from hilum.lazy import safetensors_torch, torch
from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.weight_layout import Content, WeightLayout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.nn.modules.conv import _ConvNd

    from hilum.networks.network_family import Family, NetworkSize


WHERE = "network.pretrained"
# Prefixes that wrappers add to a tensor's name: DataParallel, torch.compile, Lightning.
WRAPPERS = re.compile(r"^((module|_orig_mod|model|network|net)\.)+")
# Keys under which training programs keep the weights in their files.
NESTED = ("state_dict", "model_state_dict", "model", "network_weights", "net")
# torch's prefix for a network on several devices.
PARALLEL = "module."
NAMED = 6  # at most so many tensors are listed by name
REMEDY = "Give weights of the same network, or plan theirs: --set network.size=SIZE, as in the plan.yaml of their run"
TENSORS = "Weights are read from safetensors, or from torch files that hold tensors only"
# Address of published weights, unless a family or HF_ENDPOINT has another, and s to wait for an answer: the hub's own
# client retries for about a minute.
HUB = "https://huggingface.co"
PATIENCE = 5.0


# What became of a tensor: the file's own, extended along an axis, adapted to other channels, brought to another grid.
COPIED = "copied"
INFLATED = "inflated"
CHANNELS = "channels"
INTERPOLATED = "interpolated"
FRESH = "fresh"


@dataclass(frozen=True)
class TensorOrigin:
    """The origin of a tensor of a network.

    group:   "encoder", "decoder" or "head"
    source:  its name in the file; empty for a fresh one
    how:     "copied", "inflated", "channels", "interpolated" or "fresh"
    trained: whether training moves it
    """

    name: str
    shape: tuple[int, ...]
    group: str
    source: str = ""
    how: str = FRESH
    trained: bool = True


@dataclass(frozen=True)
class LoadedWeights:
    """The weights that a network got from a file.

    words: what fitted, what not, and why
    rows:  one a tensor, in the network's order
    """

    words: str
    rows: tuple[TensorOrigin, ...] = ()
    layout: WeightLayout | None = None

    def and_then(self, later: LoadedWeights) -> LoadedWeights:
        """This, with what a later file has put in its place."""
        first = {row.name: row for row in self.rows}
        rows = [first.get(row.name, row) if row.how == FRESH else row for row in later.rows]
        return LoadedWeights(
            "; ".join(filter(None, [self.words, later.words])), tuple(rows), later.layout or self.layout
        )


def take_over_weights(
    module: Module,
    family: Family,
    size: NetworkSize,
    source: str | Path,
    inflation: str,
    groups: Mapping[str, str] | None = None,
    minimum: float = 0.0,
) -> LoadedWeights:
    """Load weights whose names and shapes agree into the module, and return what fitted, what not, and why.

    family:    of the network, with its published weights and others' names of its tensors
    source:    "auto" for the family's published weights, else a file: safetensors or torch's own, without code
    inflation: how kernels get a third axis: "mean" repeats them along it and divides by their number (Carreira and
               Zisserman, arXiv:1705.07750, section 2.4), "centre" pads them with zeros
    groups:    {tensor: "encoder", "decoder" or "head"}; without them all is encoder
    minimum:   share of the encoder's tensors that must be found
    The first convolution is adapted to another number of channels as in timm: summed, or repeated and rescaled.
    Raises PlanError where nothing or too little fits or nothing is published, ResourceError where the download fails.
    """
    layers = named_convolutions(module)
    ours = module.state_dict()
    layout = None
    if str(source) == "auto":
        tensors = _fetch_published(layers, family, size)
        from_where = f"the published weights of {size.get('model', 'it')}"
        original: Mapping[str, Tensor] = tensors
    else:
        path = Path(source)
        original, layout, tensors = _recognise(read_weights_file(path), path, module)
        from_where = f"{path.name} with SHA-256 {_digest(path)[:16]}"
    named = _name_tensors(tensors, ours, family)
    _refuse_axes(named, layers, str(source))
    grown, how = inflate_kernels(named, ours, layers, inflation, cast("int | None", size.get("axis")))
    channels = _channels(grown, layers)
    fitting = {
        name: value
        for name in grown
        if name in ours
        and (value := _fit_shape(grown[name], ours[name], channels if name in layers else None)) is not None
    }
    if not any(name in fitting for name in _characteristic(ours)):
        raise PlanError(f"not one weight fits the plan's network: {_why(named, ours)}", str(source), REMEDY)
    origins = _origins(named, original)
    rows = tuple(
        TensorOrigin(name, tuple(value.shape), (groups or {}).get(name, "encoder"))
        if name not in fitting
        else TensorOrigin(
            name,
            tuple(value.shape),
            (groups or {}).get(name, "encoder"),
            origins[name],
            _how(named[name], grown[name], fitting[name], original.get(origins[name])),
        )
        for name, value in ours.items()
    )
    _refuse_little(rows, tensors, minimum, str(source))
    module.load_state_dict({**ours, **fitting})
    changes = [f"the first convolution adapted from {channels[0]} to {channels[1]} channels"] * (len(set(channels)) > 1)
    naming = [] if layout is None else [f"the layout of {layout.name}"]
    words = [*_summary(named, ours, fitting, from_where), *naming, *how, *changes, *_fresh(ours, fitting)]
    return LoadedWeights("; ".join(words), rows, layout)


def _origins(named: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> dict[str, str]:
    """The name in the file of each tensor: of a converted one that which ends alike."""
    originals = {id(value): name for name, value in original.items()}

    def origin(name: str, value: Tensor) -> str:
        if id(value) in originals:
            return originals[id(value)]
        alike = [one for one in original if name == one or name.endswith(f".{one}") or one.endswith(f".{name}")]
        return max(alike, key=len, default=name)

    return {name: origin(name, value) for name, value in named.items()}


def _how(named: Tensor, grown: Tensor, fitted: Tensor, original: Tensor | None) -> str:
    if fitted.shape != grown.shape:
        return CHANNELS
    if grown.shape != named.shape:
        return INFLATED
    is_same = original is None or original.numel() == named.numel()
    return COPIED if is_same else INTERPOLATED


def _refuse_axes(named: Mapping[str, Tensor], layers: Mapping[str, _ConvNd], source: str) -> None:
    """PlanError for weights of more axes than the network has, or of two less."""
    axes_of = [(named[name].ndim, layer.weight.ndim) for name, layer in layers.items() if name in named]
    wrong = [(theirs - 2, ours - 2) for theirs, ours in axes_of if theirs > 2 and theirs - ours not in (0, -1)]
    if axes_of and len(wrong) > len(axes_of) / 2:
        theirs, ours = wrong[0]
        problem = f"its weights are for images of {theirs} axes, and this network has {ours}"
        raise PlanError(problem, source, "Give weights for images of as many axes, or of one less")


def _refuse_little(rows: Sequence[TensorOrigin], tensors: Mapping[str, Tensor], minimum: float, source: str) -> None:
    """PlanError where less of the encoder is found than asked for: such a start would be next to nothing."""
    encoder = [row for row in rows if row.group == "encoder" and row.shape]
    lacking = [row.name for row in encoder if row.how == FRESH]
    if not encoder or 1 - len(lacking) / len(encoder) >= minimum:
        return
    used = {row.source for row in rows}
    spare = [name for name in _counted_tensors(tensors) if name not in used]
    problem = (
        f"only {len(encoder) - len(lacking)} of the encoder's {len(encoder)} tensors are found in it; "
        f"lacking: {_list_names(lacking)}; not used: {_list_names(spare) or 'none'}"
    )
    share = f"--set transfer.minimum=N below {minimum:g}"
    raise PlanError(problem, source, f"{REMEDY}, such as its own --set network.name and network.size, or {share}")


def _recognise(
    content: Content, path: Path, module: Module
) -> tuple[Mapping[str, Tensor], WeightLayout | None, Mapping[str, Tensor]]:
    """(tensors by the names of the file, its layout, tensors by names of the network)."""
    for candidate in weight_candidates(content):
        if (layout := weight_layout.recognise_layout(candidate)) is not None:
            tensors = _tensors(candidate) or _unwrap_content(candidate, path)  # nnU-Net's lie within the content
            return tensors, layout, layout.renamed(candidate, module)
    tensors = _unwrap_content(content, path)
    return tensors, None, tensors


def weight_candidates(content: Content) -> Iterator[Content]:
    """The content, what lies within it, and both without the prefix of a wrapper for several devices."""
    inner = [content[name] for name in NESTED if isinstance(content.get(name), Mapping)]
    for level in (content, *inner):
        yield level
        if any(str(name).startswith(PARALLEL) for name in level):
            yield {str(name).removeprefix(PARALLEL): value for name, value in level.items()}


def known_layout(path: Path) -> tuple[WeightLayout, Content] | None:
    """The layout of a file of weights, and its content; None for plain weights."""
    layouts = ((weight_layout.recognise_layout(one), one) for one in weight_candidates(read_weights_file(path)))
    return next(((layout, content) for layout, content in layouts if layout is not None), None)


def read_weights_file(path: Path) -> Content:
    """Content of a safetensors file, or of torch's own where it needs no code; else IntegrityError."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise PlanError(f"cannot be read ({error.strerror})", str(path), "Give a file of weights") from error
    # Eight bytes of length, then JSON: safetensors. All else is left to torch, which runs no code of the file.
    is_safe = start[8:] == b"{"
    try:
        content = safetensors_torch.load_file(path) if is_safe else plain_content(path)
    except UnpicklingError as error:  # torch's own words advise to load it unsafely
        problem = "holds no weights, or more than tensors, which could run any code"
        raise IntegrityError(problem, str(path), TENSORS) from error
    except (SafetensorError, *TORCH_FILE_ERRORS) as error:
        problem = str(error).partition("\n")[0] or type(error).__name__
        raise IntegrityError(f"holds no weights ({problem})", str(path), TENSORS) from error
    return content if isinstance(content, Mapping) else {}


def _unwrap_content(content: Any, path: Path) -> dict[str, Tensor]:
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = _tensors(content)
    if not tensors:
        raise IntegrityError("holds no tensors by name", str(path), "Give the state dict of a network")
    return tensors


def _tensors(content: Content) -> dict[str, Tensor]:
    return {str(name): value for name, value in content.items() if torch.is_tensor(value)}


def _fetch_published(layers: Mapping[str, _ConvNd], family: Family, size: NetworkSize) -> Mapping[str, Tensor]:
    if family.published is None:
        raise PlanError("this family has no published weights", WHERE, "Give a file: --pretrained FILE")
    silence = ""

    def unfetched(error: Exception) -> ResourceError:
        """Without a connection the hub's clients raise many kinds of errors."""
        problem = silence or str(error).partition("\n")[0] or type(error).__name__
        remedy = "Download the file on a machine with a network, and give it: --pretrained FILE"
        return ResourceError(f"the published weights cannot be fetched ({problem})", WHERE, remedy)

    with errors.foreign_errors(unfetched):
        try:
            with _in_time(family.published.address or os.environ.get("HF_ENDPOINT") or HUB) as silence:
                return family.published.fetch(_first(layers).in_channels, size)
        except ValueError as error:
            raise PlanError(str(error), WHERE, "Name another model, or give a file: --pretrained FILE") from error


@contextmanager
def _in_time(address: str) -> Iterator[str]:
    """Without an answer from the address in time, clients use downloaded files only; yields the reason, or ""."""
    hub: Any = importlib.import_module("huggingface_hub.constants")
    before = hub.HF_HUB_OFFLINE
    waited = socket.getdefaulttimeout()
    silence = ""
    if not before:
        silence = _silence(address)
    hub.HF_HUB_OFFLINE = before or bool(silence)
    socket.setdefaulttimeout(PATIENCE if silence else waited)
    try:
        yield silence
    finally:
        hub.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(waited)


def _silence(address: str) -> str:
    """Why the address does not answer; empty where it does, even with an error."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()  # noqa: S310 - the hub's own address
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return f"{address} does not answer: {getattr(error, 'reason', error)}"
    return ""


def _name_tensors(tensors: Mapping[str, Tensor], ours: Mapping[str, Tensor], family: Family) -> Mapping[str, Tensor]:
    """The tensors by our names, by the known naming that matches most of them."""
    bare = {WRAPPERS.sub("", name): value for name, value in tensors.items()}
    readings = [tensors, bare, {family.translated(name): value for name, value in bare.items()}]
    readings += [
        {f"{child}.{name}": value for name, value in bare.items()}
        for child in {name.partition(".")[0] for name in ours}
    ]
    return max(readings, key=lambda reading: sum(name in ours for name in reading))


def named_convolutions(module: Module) -> dict[str, _ConvNd]:
    """{name of its weight: layer} of convolutions, in the network's order: the first one gets the images."""
    plain = torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d
    kinds = *plain, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d
    return {f"{name}.weight".lstrip("."): one for name, one in module.named_modules() if isinstance(one, kinds)}


def inflate_kernels(
    named: Mapping[str, Tensor], ours: Mapping[str, Tensor], layers: Mapping[str, _ConvNd], how: str, asked: int | None
) -> tuple[Mapping[str, Tensor], list[str]]:
    """The tensors with two-dimensional kernels inflated to three, or one to two, and a description in words.

    asked: axis of the slices in the network's settings, which decides where the kernels' shapes fit several axes; else
           it is the last, which is the axis of most stacks of slices
    """
    flat = [name for name in named if name in layers and named[name].ndim == ours[name].ndim - 1]
    if not flat:
        return named, []
    axes = ours[flat[0]].ndim - 2
    fits = [sum(_without(ours[name], axis) == named[name].shape[2:] for name in flat) for axis in range(axes)]
    added_axis = -1 if asked is None else asked % axes
    axis = max(range(axes), key=lambda n: (fits[n], n == added_axis, n))
    grown = {name: _grow_kernel(named[name], ours[name].shape[2 + axis], layers[name], axis, how) for name in flat}
    means = "repeated and divided by how often" if how == "mean" else "zeros around their one slice"
    return {**named, **grown}, [f"{len(flat)} kernels inflated along axis {axis} ({means})"]


def _without(ours: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(size for n, size in enumerate(ours.shape[2:]) if n != axis)


def _grow_kernel(kernel: Tensor, length: int, layer: Any, axis: int, how: str) -> Tensor:
    """A kernel of this length whose output for a volume of equal slices is the flat kernel's for its slice."""
    repeated = kernel.unsqueeze(2 + axis).repeat_interleave(length, dim=2 + axis)
    if layer.transposed:  # each voxel meets only every stride-th element
        return cast("Tensor", repeated * layer.stride[axis] / length)
    if how == "mean":
        return repeated / length
    centre = torch.arange(length) == length // 2
    return repeated * centre.reshape(-1, *[1] * (kernel.ndim - 2 - axis))


def _first(layers: Mapping[str, _ConvNd]) -> _ConvNd:
    """The convolution of the images."""
    if not layers:
        raise ValueError("without a convolution the network has no first one")
    return next(iter(layers.values()))


def _channels(named: Mapping[str, Tensor], layers: Mapping[str, _ConvNd]) -> tuple[int, int]:
    """Channels of the images that the weights were trained on, and of ours; equal where the weights do not show it."""
    for name, layer in layers.items():
        theirs = named.get(name)
        fits = theirs is not None and theirs.ndim == layer.weight.ndim and layer.groups == 1
        return (int(theirs.shape[1]) if fits and theirs is not None else layer.in_channels), layer.in_channels
    return 0, 0


def _fit_shape(value: Tensor, wanted_tensor: Tensor, channels: tuple[int, int] | None) -> Tensor | None:
    """The tensor in our shape, adapted where only the number of image channels differs; None where it does not fit."""
    if value.shape == wanted_tensor.shape:
        return value
    if channels is None or value.ndim != wanted_tensor.ndim:
        return None
    theirs, ours = channels
    adapted = (value.shape[0], ours, *value.shape[2:])
    if value.shape[1] != theirs or tuple(wanted_tensor.shape) != adapted:
        return None
    adapt = importlib.import_module("timm.models").adapt_input_conv  # loads torch, and is seldom needed
    flat = value.reshape(*value.shape[:2], -1, 1)  # timm's function expects two axes
    return cast("Tensor | None", adapt(ours, flat, base_chans=theirs).reshape(adapted))


def _counted_tensors(ours: Mapping[str, Tensor]) -> list[str]:
    """Names of all tensors but the counters of batches."""
    return [name for name in ours if ours[name].ndim]


def _characteristic(ours: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that identify a network: scales and biases fit many networks."""
    return [name for name in ours if ours[name].ndim > 1] or _counted_tensors(ours)


def _why(named: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    """Why no tensor fits: other names, or other shapes."""
    common = [name for name in _characteristic(ours) if name in named]
    if not common:
        return f"there are names such as {next(iter(named))}, where it has {_characteristic(ours)[0]}"
    return f"names agree and shapes do not, as in {_shapes(common[0], named, ours)}"


def _shapes(name: str, named: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    return f"{name} of {tuple(named[name].shape)}, here {tuple(ours[name].shape)}"


def _summary(
    named: Mapping[str, Tensor], ours: Mapping[str, Tensor], fitting: Mapping[str, Tensor], from_where: str
) -> list[str]:
    """The number of tensors that fitted, those of other shapes, and those of other names."""
    counted = _counted_tensors(ours)
    parts = [f"{sum(name in fitting for name in counted)} of {len(counted)} tensors from {from_where}"]
    other = [_shapes(name, named, ours) for name in counted if name in named and name not in fitting]
    spare = [name for name in _counted_tensors(named) if name not in ours]
    parts += [f"of another shape: {_list_names(other)}"] * bool(other)
    return parts + [f"without a place here: {_list_names(spare)}"] * bool(spare)


def _fresh(ours: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> list[str]:
    fresh = [name for name in _counted_tensors(ours) if name not in fitting]
    return [f"fresh: {_list_names(fresh)}"] * bool(fresh)


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Files of torch.save, opened without running code from them.
#
# They are pickles, and a pickle can call any function. They are read by torch's unpickler of weights, which knows
# tensors and plain values; added are NumPy's numbers, which stock nnU-Net v2 keeps in its logs, and nothing else.

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
    packed_files.refuse_growth(path)
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def numpy_number(kind: Any, data: Any = b"") -> Any:
    """NumPy's maker of numbers, for numbers alone."""
    if not isinstance(kind, np.dtype) or kind.kind not in NUMBERS or not isinstance(data, bytes):
        raise UnpicklingError(f"a NumPy value of the kind {kind} is not a number")
    return np.frombuffer(data, dtype=kind, count=1)[0]
