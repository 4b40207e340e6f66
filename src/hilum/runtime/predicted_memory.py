"""The memory that a prediction will take, from the image's header and the model only."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from hilum.errors import MemoryShortageError
from hilum.files.slides.tiled_levels import CACHED_BYTES
from hilum.files.storage.spool import SPOOLED_BYTES
from hilum.lazy import torch
from hilum.runtime import hardware, proportion, torch_networks
from hilum.runtime.model_assembly import Model
from hilum.runtime.preprocessing import image_statistics
from hilum.runtime.preprocessing.image_statistics import BLOCK_VOXELS
from hilum.runtime.preprocessing.restore import YIELDED_BYTES
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.uncertainty.uncertainty_methods import NOTHING
from hilum.runtime.windows import averaging
from hilum.runtime.windows.bags import TOGETHER
from hilum.runtime.windows.slide import Network
from hilum.tasks import properties, task_catalogue
from hilum.values import Head, Image, Region

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

GIB = 2**30
# A network that is not torch's is not looked into: so many float32 a voxel of the window are those of a U-Net that is
# 32 channels wide, of which three levels' worth are alive at a time.
FLOATS_A_VOXEL = 100
# What the kernels hold beside what is counted: reordered copies of what goes in and out, for each byte alive.
KERNELS = 1.3
# What a first window brings with it, whatever its size: compiled kernels, threads, arenas of the allocator.
FIRST_WINDOW = 3 * 2**24
# Bytes for each voxel of an image that is prepared in memory: as it was read and as float32, and what was measured.
READ_COPIES = 9
# Finished parts that are worked on at a time: probabilities, their copies, and what is resampled of them.
PARTS = 4
# Maps on the image's grid that are held together while one is explained: its parts, its evidence and their order.
MAP_COPIES = 6
# Of what is free the rest stays for the system and for what the prediction misses.
USABLE = 0.9
# What was counted of a network, for as long as somebody has it: {shapes of a batch: bytes}.
_counted: WeakKeyDictionary[Module, dict[tuple[Any, ...], int | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class ExpectedMemory:
    """Bytes that predicting one image takes beside what the program holds already.

    image:   as it is read and prepared, or the parts of it that are held
    network: while a batch of windows goes through
    sums:    of windows that overlap, and what is resampled back of them
    result:  what is kept until it is written
    """

    image: int
    network: int
    sums: int
    result: int

    @property
    def total(self) -> int:
        """The sum of all four."""
        return self.image + self.network + self.sums + self.result

    def __str__(self) -> str:
        parts = {"the image": self.image, "the network": self.network, "sums": self.sums, "the result": self.result}
        listing = ", ".join(f"{size / GIB:.2f} for {name}" for name, size in parts.items())
        return f"{self.total / GIB:.2f} GiB ({listing})"


def expected_memory(
    model: Model, image: Image, *, batch: int | None = None, region: Region | None = None
) -> ExpectedMemory:
    """The memory that predicting this image will take; nothing of it is read but its header.

    batch:  windows at once; as the model was planned if not said
    region: of the image's grid, of which alone something is said
    Of a cascade it is what the stage takes that takes most. Members with grids of their own hold their images and
    sums together, and compute in turn.
    """
    if model.members:
        fewest = [one.inference.batch if batch is None else min(batch, one.inference.batch) for one in model.members]
        each = [
            expected_memory(one, image, batch=windows, region=region)
            for one, windows in zip(model.members, fewest, strict=True)
        ]
        held, sums = sum(one.image for one in each), sum(one.sums for one in each)
        return ExpectedMemory(held, max(one.network for one in each), sums, max(one.result for one in each))
    expected = _expect(model, image, batch or model.inference.batch, region)
    if model.first is None:
        return expected
    first = expected_memory(model.first, image)
    joined = 0
    if model.preprocessing.held_parts(image.geometry).streamed is None:
        # Another program's second sees the image as float32 with one more channel, made of the first's result.
        joined = 4 * math.prod(image.shape) // image.shape[0] * (image.shape[0] + 1)
    second = replace(expected, image=expected.image + joined + first.result)
    return max(first, second, key=attrgetter("total"))


def _expect(model: Model, image: Image, batch: int, region: Region | None) -> ExpectedMemory:
    patch, in_parts = model.inference.patch, model.preprocessing.held_parts(image.geometry)
    spatial = proportion.prepared_shape(model.preprocessing, image.geometry, patch, in_parts.shape)
    channels = int(model.networks.architecture["channels"])
    if (tiles := model.preprocessing.tiles) is not None:  # read and encoded a few at a time
        held = CACHED_BYTES + READ_COPIES * TOGETHER * channels * tiles.size**2
        return ExpectedMemory(held, _network(model, batch), 0, 0)
    source = math.prod(image.shape)
    dense = properties.kept_channel_count(model.task)
    dense += 2 if dense and model.uncertainty is not NOTHING else 0  # the uncertainty within views and between them
    streamed = in_parts.streamed is not None and 4 * source >= in_parts.streamed
    streamed = streamed and len(patch) == image.geometry.ndim
    shape = spatial if region is None else proportion.shape_around(image.geometry, spatial, patch, region)
    walked = _row_voxels(image, shape, patch)
    if in_parts.streamed is None:
        walked = min(length * math.prod(shape) // size for length, size in zip(patch, shape, strict=True))
    plane, limit = 4 * (dense + 1) * walked, image_statistics.most_held(len(patch))
    if streamed:
        rows = _row_voxels(image, spatial, patch)
        rows = min(rows, rows * limit // plane) if len(patch) < 3 else rows  # a picture's input is cut as its sums are
        held = BLOCK_VOXELS * READ_COPIES + channels * 4 * 3 * rows
        held += CACHED_BYTES if image.is_slide else 0
    else:
        held = READ_COPIES * source + in_parts.copies * channels * math.prod(spatial)
    if in_parts.restored:
        sums = min(limit, plane) + PARTS * min(YIELDED_BYTES, 4 * dense * math.prod(shape))
    else:
        sums = plane + 4 * dense * (math.prod(spatial) + math.prod(image.geometry.shape))
    result = math.prod(image.geometry.shape) * task_catalogue.voxel_bytes(model.task) if dense else 0
    if image.is_slide and model.task.bytes_per_voxel is None:
        result = min(result, SPOOLED_BYTES)  # of a larger label map nothing is held
    return ExpectedMemory(int(held), _network(model, batch), int(sums) if dense else 0, result)


def fit_batch_to_memory(model: Model, image: Image, where: str, region: Region | None = None) -> Model:
    """The model, with fewer windows at once where as many as planned would not fit beside this image.

    Raises MemoryShortageError, with the figure, where not even one would.
    """
    if model.first is not None and not model.members:
        model = replace(model, first=fit_batch_to_memory(model.first, image, where))
    free = USABLE * hardware.available_host_memory()
    batch = max(one.inference.batch for one in model.members or (model,))
    while (expected := expected_memory(model, image, batch=batch, region=region)).total > free and batch > 1:
        batch //= 2
    if expected.total > free:
        problem = f"predicting it would take {expected}, and {free / GIB:.2f} GiB may be used"
        remedy = "Give a part of it by --region, close other programs, or take a machine with more memory"
        stages = model.members or (model,)
        if not all(one.preprocessing.held_parts(image.geometry).restored for one in stages):
            problem += "; the transforms of this model can be undone only for the whole image"
            remedy = "Close other programs, take a machine with more memory, or resample the image to fewer voxels"
        raise MemoryShortageError(problem, where, remedy)
    return _with_batch(model, batch)


def _with_batch(model: Model, batch: int) -> Model:
    """The model with so many windows at once at the most, and so its members."""
    members = tuple(_with_batch(one, batch) for one in model.members)
    fewest = min(batch, model.inference.batch)
    if fewest == model.inference.batch and not members:
        return model
    return replace(model, inference=replace(model.inference, batch=fewest), members=members)


def refuse_explaining(model: Model, image: Image, where: str, *, method: str, for_gradients: bool) -> None:
    """MemoryShortageError, with both figures, where an explanation of this image would not fit into memory."""
    maps = len(averaging.member_networks(torch_networks.unwrap_smaller_batches(model.networks.run)))
    maps *= int(model.networks.architecture["channels"])
    result = MAP_COPIES * 4 * maps * math.prod(image.geometry.shape)
    expected = replace(expected_memory(model, image, batch=1), result=result)
    if for_gradients:
        expected = replace(expected, network=_network(model, 1, for_gradients=True))
    free = USABLE * hardware.available_host_memory()
    if expected.total > free:
        problem = f"explaining it by {method} would take {expected}, and {free / GIB:.2f} GiB may be used"
        remedy = f"Close other programs, {'choose occlusion, ' * for_gradients}or take a machine with more memory"
        raise MemoryShortageError(problem, where, remedy)


def _row_voxels(image: Image, spatial: Sequence[int], patch: Sequence[int]) -> int:
    """Voxels of the rows of one window over the whole plane, along the axis that the walk follows: the file's last."""
    axes, _ = image.geometry.to_canonical
    axis = axes.index(len(axes) - 1) if len(spatial) == len(axes) == 3 else 0
    return patch[axis] * math.prod(spatial) // spatial[axis]


def _network(model: Model, batch: int, *, for_gradients: bool = False) -> int:
    """While a batch goes through: what is alive of its layers at the most, one member after the other."""
    patch = model.inference.patch
    members = averaging.member_networks(torch_networks.unwrap_smaller_batches(model.networks.run))
    outputs = 4 * batch * sum(_numbers(head, patch) for head in model.task.heads.values())
    held = outputs * len(members) if len(members) > 1 else 0  # what each has said waits for the others
    if isinstance(members[0], TorchNetwork) and not members[0].device.startswith("cpu"):
        return FIRST_WINDOW + held  # the device has memory of its own
    # A second network of a cascade takes more channels than the images have.
    context = len(model.networks.context)
    shapes = [(batch, int(model.networks.architecture["channels"]), *patch), *([(batch, context)] if context else [])]
    differing = members if model.networks.unlike else members[:1]
    alive = max(_of_one(member, shapes, for_gradients=for_gradients) for member in differing)
    return int(KERNELS * alive) + FIRST_WINDOW + held


def _numbers(head: Head, patch: Sequence[int]) -> int:
    """Numbers of one window's output."""
    return head.count * (math.prod(patch) if head.is_dense else 1)


def _of_one(member: Network, shapes: Sequence[tuple[int, ...]], *, for_gradients: bool) -> int:
    """Bytes of one network's layers that are alive together."""
    module = member.module if isinstance(member, TorchNetwork) else None
    return layer_bytes(module, *shapes, for_gradients=for_gradients)


def layer_bytes(module: Module | None, *shapes: tuple[int, ...], for_gradients: bool = False) -> int:
    """Bytes of a network's layers that are alive together, of inputs of these shapes; estimated of one without torch.

    for_gradients: all of them stay until the way back
    """
    alive = None if module is None else _alive(module, *shapes, for_gradients=for_gradients)
    images = shapes[0]
    return FLOATS_A_VOXEL * 4 * images[0] * math.prod(images[2:]) if alive is None else alive


def _alive(module: Module, *shapes: tuple[int, ...], for_gradients: bool = False) -> int | None:
    """Bytes of the layers' inputs and outputs that are alive together, counted on torch's meta device.

    None for a network that looks at numbers, of which there are none there.
    """
    counted, key = _counted.setdefault(module, {}), (shapes, for_gradients)
    if key not in counted:
        alive = _Alive(keeps=for_gradients)
        # The layers with tensors that hold nothing in place of their weights.
        weights = {id(one): one.detach().to("meta") for one in (*module.parameters(), *module.buffers())}
        try:
            with torch.device("meta"), torch.inference_mode():
                empty = copy.deepcopy(module, weights)
                for layer in empty.modules():
                    layer.register_forward_hook(lambda layer, given, made: alive.see((given, made)))
                empty(*(torch.empty(shape) for shape in shapes))
            counted[key] = alive.most
        except RuntimeError:
            counted[key] = None
    return counted[key]


class _Alive:
    """The storage of tensors, from when they are seen until nobody holds them, or all of it where it is kept."""

    def __init__(self, *, keeps: bool) -> None:
        self.now = self.most = 0
        self.known: set[int] = set()
        self.kept: list[Any] | None = [] if keeps else None

    def see(self, value: Any) -> None:
        """Every tensor in nested tuples, lists and dictionaries."""
        match value:
            case torch.Tensor():
                self._count(value)
            case dict():
                self.see(tuple(value.values()))
            case tuple() | list():
                for part in value:
                    self.see(part)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        if self.kept is None:
            finalize(storage, self._forget, key, size)
        else:
            self.kept.append(storage)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def with_smaller_batches(model: Model) -> Model:
    """The model that continues with fewer windows at once where memory runs out, in both stages of a cascade."""
    first = None if model.first is None else with_smaller_batches(model.first)
    members = tuple(with_smaller_batches(one) for one in model.members)
    return replace(model.with_run(torch_networks.in_smaller_batches(model.networks.run)), first=first, members=members)
