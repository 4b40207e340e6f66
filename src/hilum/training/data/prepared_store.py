"""Cases as the network sees them, prepared once and kept: on disk under the hash of what they were made from.

The key is a hash of the case's file contents and of the settings that made the arrays: never stale, never rebuilt in
vain. An entry is used where its checksums say that it is what was written. Arrays lie compressed in chunks (blosc2), so
that a patch is read without the rest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

import blosc2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import HilumError, IntegrityError, ResourceError
from hilum.files.storage import atomic, cache, hashing
from hilum.runtime import Context, Preprocessing, record_files
from hilum.runtime.cascade import LabelSource
from hilum.runtime.parallel import map_cases
from hilum.runtime.preprocessing.protocol import GridTrace, RegionSource
from hilum.runtime.preprocessing.slide_tiles import Bag, TileStack
from hilum.tasks import properties, task_settings
from hilum.training.data import target_kinds
from hilum.training.data.target_kinds import KINDS, TargetKind
from hilum.transforms import channel_stack
from hilum.values import Array, Case, PlainValue, Region, Target, Vector
from hilum.values.dataset_cases import CaseTexts
from hilum.values.voxel_images import FRAME_FILES

if TYPE_CHECKING:
    from hilum.tasks import Task
    from hilum.transforms.intensity import ChannelScale

# Raised when prepared arrays would come out otherwise than before, or would be known by another key.
LAYOUT = 12
# Voxels of a volume's chunk along each axis, and of the image that are worked on at a time.
CHUNK = 64
BRICK_VOXELS = 2**25
# Each case is read by a thread of its own already.
READING = {"nthreads": 1}
TARGET = "target"
KIND = "kind"
POSITIONS = "positions"
LOST = "lost"
PLACES = "places"
MARKED = "marked.b2nd"
TAUGHT = "taught"
TAUGHT_MAPS = "taught.b2nd"
Progress = Callable[[int, int], None]
UNSHARED = f"Let {cache.VARIABLE} name a folder that all workers see under this path"
# In place of the target of a case of which nothing but the image is seen.
NO_TARGET = Target(Vector(1), np.zeros((), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class OnDisk:
    """An array in the cache of which regions are read.

    It is opened for each of them, which takes a tenth of a ms: one that stays open holds a quarter of a MiB, and cases
    may be thousands.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __getitem__(self, region: Any) -> NDArray[Any]:
        with _whole_until_now(self.path):
            return np.asarray(blosc2.open(str(self.path), mode="r", dparams=READING)[region])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


@dataclass(frozen=True, eq=False)
class PositionsOnDisk(OnDisk):
    """Positions of a structure, read from an entry on disk: those of many structures and cases take gigabytes.

    fact: its name there
    """

    fact: str

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> NDArray[Any]:
        with _whole_until_now(self.path), np.load(self.path, allow_pickle=False) as facts:
            return np.asarray(facts[self.fact][which])


@contextmanager
def _whole_until_now(path: Path) -> Iterator[None]:
    """IntegrityError for a file that can no longer be read: it was whole when the work began."""
    try:
        yield
    except (RuntimeError, OSError, KeyError, ValueError, BadZipFile) as error:
        problem = f"this entry of the cache was damaged or deleted while it was in use ({error})"
        remedy = "Run the command again; continue a training with --resume"
        raise IntegrityError(problem, str(path), remedy) from error


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """One case as the network sees it.

    image:     (channels, *spatial) float32
    target:    as its kind has it
    positions: per structure (up to `kinds.POSITIONS`, axes) where it lies; empty for a vector
    steps:     length of a voxel per axis
    kind:      of target; as its shape says where nobody named it
    context:   (entries,) covariates; None where the network gets images only
    marked:    (*spatial) numbers of labels from a stage before; None where there is none
    taught:    (channels,) or (channels, *spatial) answers of another model; None where nobody teaches
    there:     (channels,) which of them the case has; None where a case has all
    place:     the number of the place that it is of: `TARGET_PLACE`, or those of labelled cases from 0 on
    group:     of people, that training treats like the others; empty where it looks at none
    patient:   whose it is; the case itself where nobody is named
    structures: the names of those of `positions`, alike in all cases; their numbers from 1 where nobody named them
    lost:       the names of those that have voxels on the image's grid and none on the network's
    texts:      of the case; the store keeps no word of them
    columns:    (entries,) covariates that an objective reads and the network does not get
    places:     (tiles, 2) of the tiles of a bag, whose image has 8 bits; None of other images
    scales:     by which the network sees each channel of a bag
    """

    id: str
    image: Array
    target: Any
    positions: tuple[NDArray[np.signedinteger[Any]] | PositionsOnDisk, ...]
    steps: tuple[float, ...]
    kind: TargetKind = field(default=None)  # type: ignore[assignment]  # each has one, whatever stands before it
    context: NDArray[np.float32] | None = None
    marked: Array | None = None
    taught: Array | None = None
    there: NDArray[np.bool_] | None = None
    patient: str = ""
    group: str = ""
    structures: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    texts: CaseTexts | None = None
    place: int = 0
    columns: NDArray[np.float32] | None = None
    places: NDArray[np.int64] | None = None
    scales: tuple[ChannelScale, ...] = ()

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", target_kinds.kind_for_axes(self.target.ndim, len(self.shape)))
        if not self.patient:
            object.__setattr__(self, "patient", self.id)
        if not self.structures:
            object.__setattr__(self, "structures", tuple(str(n + 1) for n in range(len(self.positions))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels an axis, without the channels."""
        return tuple(self.image.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that its arrays take in memory."""
        arrays: list[Any] = [*self.positions, *(array for _, array in self.kind.to_arrays(self.target).values())]
        arrays += [one for one in (self.marked, self.taught) if one is not None]
        of_image = int(np.prod(self.image.shape)) * (4 if self.places is None else 1)
        return of_image + sum(int(np.prod(array.shape)) * int(array.dtype.itemsize) for array in arrays)

    @property
    def in_memory(self) -> PreparedCase:
        """The same case with its arrays read."""
        arrays = {name: np.asarray(array[...]) for name, (_, array) in self.kind.to_arrays(self.target).items()}
        marked, taught = (None if one is None else np.asarray(one[...]) for one in (self.marked, self.taught))
        positions = tuple(np.asarray(one) for one in self.positions)
        target = self.kind.from_arrays(arrays)
        return replace(self, image=self.image[...], target=target, positions=positions, marked=marked, taught=taught)

    @property
    def bag(self) -> Bag | None:
        """All of its tiles as the network sees them; None of other images."""
        return None if self.places is None else Bag(self.image, self.scales, self.places)

    def cut_region(self, region: Region) -> tuple[NDArray[np.float32], Any]:
        """Image, as the network sees it, and target of a region; a vector target is the whole case's."""
        return self.network_input(region), self.kind.cut_region(self.target, region)

    def teacher_answer(self, region: Region) -> NDArray[np.float32] | None:
        """Answer of another model for a region, or for the whole image."""
        if self.taught is None:
            return None
        return np.asarray(self.taught[(slice(None), *region)] if self.taught.ndim > 1 else self.taught, np.float32)

    def network_input(self, region: Region) -> NDArray[np.float32]:
        """(channels, *region) as the network sees it: what was marked before is the last channel."""
        image = np.asarray((self.bag or self.image)[(slice(None), *region)], dtype=np.float32)
        if self.marked is None:
            return image
        return np.concatenate([image, np.asarray(self.marked[region], dtype=np.float32)[None]])


@dataclass(frozen=True)
class EarlierAnswers:
    """Files of what other networks said of a case before: the labels that one marked, the answer that one teaches."""

    marked: Path | None = None
    taught: Path | None = None


def prepare_all(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    task: Task | None,
    *,
    threads: int,
    memory: int,
    reading: Mapping[str, PlainValue] | None = None,
    context: Context | None = None,
    columns: Context | None = None,
    marked: Mapping[str, Path] | None = None,
    taught: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
) -> list[PreparedCase]:
    """All cases prepared, in order; those that the cache has are taken from there.

    task:    makes the targets; None: no reference is looked at
    memory:  bytes; arrays that fit into them together are kept in memory, else patches are read from disk
    reading: what a person decided about how the files are read, as far as it changes voxels or references
    context: the covariates that the network gets
    columns: those that an objective reads
    marked:  {case id: what a network before marked in it, as `keep_label_numbers` has written it}
    taught:  {case id: file with the answer of another model, (channels,) or (channels, *spatial) on its own grid}
    Cases are prepared where the command has it done (`map_cases.spread_over`), else by threads of this process.
    """
    folder = (cache.cache_folder() / "prepared").absolute()
    for shelf in folder.glob("*"):
        atomic.sweep_leftovers(shelf)
    # A worker has another working folder.
    given = [None if one is None else {name: path.absolute() for name, path in one.items()} for one in (marked, taught)]

    def prepare(case: Case) -> PreparedCase:
        """A case as the store has it, with its covariates."""
        before = EarlierAnswers(*(None if one is None else one[case.id] for one in given))
        prepared = replace(
            _prepare(case, preprocessing, task, reading or {}, folder, before),
            patient=case.patient,
            texts=case.references.get("text"),
            columns=columns.vector(case.covariates)[0] if columns else None,
            scales=preprocessing.colour_scales or (),
        )
        if not context:
            return prepared
        presence = zip(preprocessing.channels, () if prepared.there is None else prepared.there, strict=False)
        present = None if prepared.there is None else [name for name, has in presence if has]
        return replace(prepared, context=context.vector(case.covariates, present)[0])

    prepared: dict[int, PreparedCase] = {}
    spread = map_cases.current_spread(partial(map_cases.map_in_threads, threads))
    for number, outcome in spread(prepare, cases):
        if isinstance(outcome, HilumError):
            raise outcome
        if isinstance(outcome.image, OnDisk) and not outcome.image.path.exists():
            raise ResourceError("a worker keeps what it prepares elsewhere", str(folder), UNSHARED)
        prepared[number] = outcome
        if progress is not None:
            progress(len(prepared), len(cases))
    done = [prepared[number] for number in range(len(cases))]
    if sum(one.nbytes for one in done) <= memory:
        return [one.in_memory for one in done]
    return done


def keep_label_numbers(numbers: Array, path: Path) -> None:
    """Numbers of labels, (*spatial) on the case's own grid, into a file that is whole or absent."""
    with atomic.write_whole(path, overwrite=True) as unfinished:
        _pack(numbers, None, unfinished)


def _prepare(
    case: Case,
    preprocessing: Preprocessing,
    task: Task | None,
    reading: Mapping[str, PlainValue],
    folder: Path,
    before: EarlierAnswers,
) -> PreparedCase:
    made_from = [
        LAYOUT,
        hashing.content_hash(case),
        dict(reading),
        _settings_of_arrays(preprocessing),
        *([] if task is None else [task.name, task_settings.target_settings(task), _target_digest(case, task)]),
        *_files_around(case, preprocessing.around),
        *([] if before.marked is None else [record_files.file_digest(before.marked)]),
        *([] if before.taught is None else [TAUGHT, record_files.file_digest(before.taught)]),
    ]
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=list).encode()).hexdigest()
    folder_of_case = folder / key[:2] / key
    return _open(record_files.sealed_entry(folder_of_case, partial(_fill, case, preprocessing, task, before)), case.id)


def _settings_of_arrays(preprocessing: Preprocessing) -> Mapping[str, PlainValue]:
    """The settings by which arrays differ: those of bags hold all tiles, however many training samples."""
    if (tiles := preprocessing.tiles) is None:
        return preprocessing.settings
    return {**preprocessing.settings, "tiles": [tiles.size, tiles.mm], "shape": None, "smallest": None}


def _files_around(case: Case, around: int) -> Iterator[str]:
    """SHA-256 of each file that shows a frame before or after one that is a file itself."""
    for image in case.images.values() if around else ():
        place, files = image.facts.get(FRAME_FILES, (0, ()))
        for number in range(max(0, place - around), min(len(files), place + around + 1)):
            yield hashing.file_hash(files[number])


def _target_digest(case: Case, task: Task) -> Any:
    """A SHA-256 of numbers that hold for a whole image: of two columns of a table each states others of the same files.

    None of masks, which takes as long to read as to prepare: the options of its reading stand for it. Of a task
    of parts that of each part that the case has a reference of.
    """
    if names := properties.part_names(task):
        parts = {name: properties.part_or_whole(task, name) for name in names}
        return {name: _target_digest(case, p) for name, p in parts.items() if p.needs <= set(case.references)}
    if not all(isinstance(head, Vector) for head in task.heads.values()):
        return None
    numbers = np.ascontiguousarray(task.target(case).data)
    return hashlib.sha256(f"{numbers.dtype.str} {numbers.shape} ".encode() + numbers.tobytes()).hexdigest()


def _fill(case: Case, preprocessing: Preprocessing, task: Task | None, before: EarlierAnswers, folder: Path) -> None:
    """Prepare a case and write its arrays and facts into the folder."""
    images = channel_stack.stack_images(case.images, case.id)
    image, trace = preprocessing.open_image(images, case.id)
    target = NO_TARGET if task is None else task.target(case)
    kind = KINDS[type(None)] if task is None else target_kinds.target_kind(target.head)
    data = kind.prepare(target, preprocessing, trace)
    _pack(image.stack if isinstance(image, Bag) else image, trace, folder / "image.b2nd")
    packed: dict[str, Array | OnDisk] = {}
    for name, (large, array) in kind.to_arrays(data).items():
        if large:
            _pack(array, trace, folder / f"{_fact_name(name)}.b2nd")
        in_parts = large and not isinstance(array, np.ndarray)
        packed[name] = _unpack(folder / f"{_fact_name(name)}.b2nd") if in_parts else array
    data = kind.from_arrays(packed)
    facts: dict[str, Any] = {"steps": np.array(trace.steps), LOST: np.array(kind.lost(target, data), dtype=str)}
    facts |= {_fact_name(name): array for name, (large, array) in kind.to_arrays(data).items() if not large}
    for structure, positions in kind.positions(target, data, trace.padded_shape).items():
        facts[_fact_name(str(structure), POSITIONS)] = positions
    facts |= {_fact_name(part, KIND): np.array(name) for part, name in target_kinds.kind_names(kind).items()}
    if isinstance(image, Bag):
        facts[PLACES] = image.places
    if preprocessing.absent:
        facts["there"] = np.array(preprocessing.present(images, case.id))
    if before.marked is not None:
        _pack(LabelSource(cast("Array", _unpack(before.marked)), trace), trace, folder / MARKED)
    if before.taught is not None:
        answer = np.load(before.taught, allow_pickle=False)
        if answer.ndim > 1:
            _pack(preprocessing.numbers(answer, trace).astype(np.float16), trace, folder / TAUGHT_MAPS)
        else:
            facts[TAUGHT] = answer
    np.savez(folder / "facts.npz", **facts)


def _pack(source: Array | RegionSource, trace: GridTrace | None, path: Path) -> None:
    """Write an array into chunks; what is made in parts is made as many slices at a time as a chunk has."""
    dtype = np.dtype(
        getattr(source, "dtype", np.float32)
    )  # what is made region by region states none: it is for the network
    # Fast to read is what counts: it is written once and read every epoch.
    settings: dict[str, Any] = {"cparams": {"codec": blosc2.Codec.LZ4, "clevel": 1, "nthreads": 1}}
    axes = 0 if trace is None else len(trace.shape)
    if isinstance(source, TileStack):  # tiles are read one by one
        settings["chunks"] = (source.shape[0], 1, source.size, source.size)
    elif axes > 2:  # a patch then meets few chunks, whichever way it is long
        settings["chunks"] = (*(1,) * (len(source.shape) - axes), *(min(CHUNK, n) for n in source.shape[-axes:]))
        settings["blocks"] = tuple(min(CHUNK // 2, n) for n in settings["chunks"])
    try:
        if isinstance(source, np.ndarray) or trace is None or axes < 3:  # a picture is small
            array = np.ascontiguousarray(source[tuple(slice(0, size) for size in source.shape)])
            blosc2.asarray(array, urlpath=str(path), mode="w", **settings)
            return
        packed = blosc2.empty(source.shape, dtype, urlpath=str(path), mode="w", **settings)
        for region in _bricks(source.shape, trace):
            packed[region] = np.ascontiguousarray(source[region])
    except RuntimeError as error:  # which says that it could not be written, and not why
        needed = math.prod(source.shape) * dtype.itemsize
        full = shutil.disk_usage(path.parent).free < needed
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def _bricks(shape: Sequence[int], trace: GridTrace) -> Iterator[Region]:
    """Regions of whole chunks in the order in which the file gives its slices; of a wide plane some rows at a time."""
    others = tuple(slice(0, size) for size in shape[:-3])
    spatial = shape[-3:]
    order = trace.slice_order
    first, second, third = order.order((0, 1, 2))
    made_of = math.prod(trace.kept_shape) / math.prod(trace.shape)  # voxels of the image to one of these
    rows = CHUNK * max(1, int(BRICK_VOXELS / max(1, made_of)) // (math.prod(shape[:-3]) * CHUNK**2 * spatial[third]))
    walk = [slice(at, min(at + CHUNK, spatial[first])) for at in range(0, spatial[first], CHUNK)]
    for slices in reversed(walk) if order.backwards else walk:
        for at in range(0, spatial[second], rows):
            row = slice(at, min(at + rows, spatial[second]))
            region = {first: slices, second: row, third: slice(0, spatial[third])}
            yield (*others, *(region[axis] for axis in range(3)))


def _open(folder: Path, case: str) -> PreparedCase:
    with np.load(folder / "facts.npz", allow_pickle=False) as file:
        facts = dict(file)
    placed = sorted((name for name in facts if name.startswith(POSITIONS)), key=lambda name: (len(name), name))
    path = folder / "facts.npz"
    held = [(facts[name], name) for name in placed]
    positions = tuple(PositionsOnDisk(path, one.shape, one.dtype, name) for one, name in held)
    structures = tuple(_part(name, POSITIONS) for name in placed)
    targets: dict[str, Array | OnDisk] = {name: array for name, array in facts.items() if name.startswith(TARGET)}
    targets |= {path.stem: _unpack(path) for path in folder.glob(f"{TARGET}*.b2nd")}
    arrays = {_part(name, TARGET): array for name, array in targets.items()}
    image: Any = _unpack(folder / "image.b2nd")
    kinds = {_part(name, KIND): str(value) for name, value in facts.items() if name.startswith(KIND)}
    kind = target_kinds.kind_from_names(kinds)
    marked: Any = _unpack(folder / MARKED) if (folder / MARKED).is_file() else None
    steps = tuple(facts["steps"].tolist())
    taught: Any = _unpack(folder / TAUGHT_MAPS) if (folder / TAUGHT_MAPS).is_file() else facts.get(TAUGHT)
    return PreparedCase(
        case,
        image,
        kind.from_arrays(arrays),
        positions,
        steps,
        kind,
        marked=marked,
        taught=taught,
        there=facts.get("there"),
        structures=structures,
        lost=tuple(facts[LOST].tolist()),
        places=facts.get(PLACES),
    )


def _fact_name(part: str, fact: str = TARGET) -> str:
    """The name that a fact of a part has in the cache."""
    return f"{fact}_{part}" if part else fact


def _part(name: str, fact: str) -> str:
    """The inverse of `_fact_name`."""
    return name.removeprefix(fact).removeprefix("_")


def _unpack(path: Path) -> OnDisk:
    opened = blosc2.open(str(path), mode="r", dparams=READING)
    return OnDisk(path, tuple(opened.shape), opened.dtype)
