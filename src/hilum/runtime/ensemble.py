"""Models of several trainings as one, on one scale of intensities, with weights on the device in turn.

`members/` of an ensemble is sealed as a whole: each member's own checkpoint, and `ensemble.json` with how much each
counts, how all are decoded together, and through which windows they look. Each fold of a cross-validation has the
window, mean and deviation of its own training cases; their mean sees an image that is prepared once.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import atomic
from hilum.lazy import torch
from hilum.runtime import bundle, hardware, model_record, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.guard import image_gate
from hilum.runtime.guard.image_gate import Answering, Guard
from hilum.runtime.hardware import CUDA
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_parts import PART_FILES, WITHOUT_PARTS, ModelParts
from hilum.runtime.model_schema import MEMBERS_SCHEMA, MembersRecord, ModelOrigin
from hilum.runtime.package.package_contents import MEMBERS, MOST_MEMBERS, RECORD, WEIGHTS
from hilum.runtime.part_settings import PartsRecord
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.result_codes import CODES
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.uncertainty.uncertainty_methods import NOTHING
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.slide import Network
from hilum.tasks import task_settings
from hilum.transforms.intensity import Normalisation
from hilum.values import Array
from hilum.work_state import log

if TYPE_CHECKING:
    from hilum.tasks import Task


LIST = "ensemble.json"
GUARD = "guard"
# The entry of a record by which another program's model is known.
ORIGIN = "origin"
# By how much shares may miss 1 together: as JSON keeps them.
ROUNDING = 1e-6


def averaged_model(
    members: Sequence[Model],
    task: Task,
    inference: Inference,
    shares: tuple[float, ...] | None = None,
    where: str = "ensemble",
) -> Model:
    """Several models as one, which averages what their networks say window by window.

    shares: how much each counts, together 1; None where all count alike
    Raises UsageError for members whose images are prepared differently.
    """
    record, members = _record(members, shares), share_context(members)
    preprocessing, networks = share_scale(members, where)
    run = AveragedNetwork(networks, task.average, shares, each=task.folds_by_head)
    architectures = tuple(one.networks.architecture for one in members)
    first = architectures[0]
    architectures = architectures if any(one != architectures[0] for one in architectures) else ()
    if "first_entry" in first:
        first = {**first, "context": [one.networks.architecture.get("context") for one in members]}
    # The gate of the first, whose features are looked at, stands for all; of doubt the most careful one decides.
    guard = guard_for_scale(preprocessing, members[0])
    if guard is not None:
        guard = replace(guard, answers=_strictest([one.guard for one in members if one.guard is not None]))
    return Model(task, preprocessing, inference, Networks(run, first, architectures), record).with_guard(guard)


def joined_model(members: Sequence[Model], task: Task, shares: tuple[float, ...] | None = None) -> Model:
    """Models that differ in grid, windows or family as one, whose outputs are averaged on the image's grid.

    task:   of all
    shares: how much each counts, together 1; None where all count alike
    """
    first, record = members[0], _record(members, shares)
    guards = [one.guard for one in members if one.guard is not None]
    # As of networks: the gate of the first stands for all, and of doubt the most careful one decides.
    guard = None if first.guard is None else replace(first.guard, answers=_strictest(guards))
    joined = replace(first, task=task, record=record, parts=WITHOUT_PARTS, uncertainty=NOTHING)
    return replace(joined, members=tuple(members), shares=shares).with_guard(guard)


def _strictest(guards: Sequence[Guard]) -> Answering | None:
    return image_gate.strictest_answering([one.answers for one in guards])


def share_context(members: Sequence[Model]) -> Sequence[Model]:
    """The members for one context of all their covariates, where they do not have the same."""
    contexts = [one.networks.architecture.get("context") for one in members]
    if all(one == contexts[0] for one in contexts):
        return members
    moved, first = [], 0
    for member in members:
        networks_of_member = member.networks
        assert isinstance(networks_of_member.run, TorchNetwork)  # noqa: S101 - as it was loaded
        count = len(networks_of_member.context)
        run = TorchNetwork(
            bundle.network.OnItsEntries(networks_of_member.run.module, first, count).eval(),
            networks_of_member.run.device,
        )
        networks = replace(
            networks_of_member, run=run, architecture={**networks_of_member.architecture, "first_entry": first}
        )
        moved.append(replace(member, networks=networks))
        first += count
    return moved


def _record(members: Sequence[Model], shares: tuple[float, ...] | None) -> ModelOrigin:
    """The record of a model of several: what holds for all of them, and the record of each."""
    records = [one.record for one in members]
    common = {key: value for key, value in records[0].items() if all(dict(one).get(key) == value for one in records)}
    digests = [str(one.get("weights_sha256", "")) for one in records]
    common |= {} if shares is None else {"shares": list(shares)}
    # Members may know the codes of different names; of one name the first member's hold.
    codes = {name: coded for one in reversed(records) for name, coded in (one.get(CODES) or {}).items()}
    common |= {CODES: codes} if codes else {}
    digest = record_files.join_digests([*digests, *map(str, shares or ())])
    return cast("ModelOrigin", {**common, "weights_sha256": digest, "members": records})


def write_members(checkpoints: Sequence[Path], model: Model, notes: MembersRecord, folder: Path) -> None:
    """The members' checkpoints, and how they are one, into `members/` of an existing folder.

    checkpoints: of each network; of a model of another program its own file or folder
    model: of all of them
    notes: further entries of the record
    """
    with atomic.write_whole(folder / MEMBERS, overwrite=True) as staging:
        staging.mkdir()
        _write_members(checkpoints, model, notes, staging)


def _write_members(checkpoints: Sequence[Path], model: Model, notes: MembersRecord, target: Path) -> None:
    foreign = dict[str, str]()
    for number, checkpoint in enumerate(checkpoints):
        (target / str(number)).mkdir()
        if detect.is_foreign(checkpoint):
            foreign[str(number)] = detect.copy_foreign(checkpoint, target / str(number))
            continue
        for name in filter(lambda name: (checkpoint / name).is_file(), (RECORD, WEIGHTS, *PART_FILES.values())):
            shutil.copyfile(checkpoint / name, target / str(number) / name)
        record_files.seal_folder(target / str(number))
    record: MembersRecord = {
        "task": {"name": model.task.name, **task_settings.settings_of(model.task)},
        "inference": model.inference.settings,
        "members": len(checkpoints),
        "shares": model.shares if model.members else model.networks.shares,
        **notes,
    }
    if model.members:
        record |= {"apart": _numbers_apart(model, foreign), "foreign": foreign}
    if model.members or len(model.networks.members) == len(checkpoints):
        gate = ModelParts(guard=model.guard)
        gate.write(target)
        record |= {"guard": gate.settings["guard"]} if model.guard is not None else {}
    record_files.write_json(target / LIST, MEMBERS_SCHEMA, record)
    record_files.seal_folder(target)


def _numbers_apart(model: Model, foreign: Mapping[str, str]) -> list[list[int]]:
    """The numbers of the checkpoints of each member whose outputs are averaged on the image's grid."""
    groups, number = list[list[int]](), 0
    for one in model.members:
        count = 1 if str(number) in foreign else len(one.networks.members)
        groups.append([*range(number, number + count)])
        number += count
    return groups


def with_own_guard(model: Model, record: MembersRecord, folder: Path) -> Model:
    """The model with the gate that was fitted for all of its members, where its `ensemble.json` names one."""
    return model.with_guard(
        model_record.read_parts(cast("PartsRecord", {GUARD: record.get(GUARD)}), folder / MEMBERS).guard
    )


def read_member_list(folder: Path) -> MembersRecord:
    """`members/ensemble.json` of an ensemble; IntegrityError where a file of `members/` is not what was written."""
    members_folder = folder / MEMBERS
    record = record_files.read_json(members_folder / LIST, MEMBERS_SCHEMA)
    count, shares, apart = record.get("members"), record.get("shares"), record.get("apart")
    if not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        raise IntegrityError(f"has {count} members", str(members_folder / LIST), "Get the ensemble again")
    foreign: Mapping[str, str] = record.get("foreign") or {}
    if apart is not None and sorted(number for group in apart for number in group) != list(range(count)):
        raise IntegrityError(f"says {apart} of {count} networks", str(members_folder / LIST), "Get the ensemble again")
    if shares is not None and not _are_shares(shares, count if apart is None else len(apart)):
        raise IntegrityError(
            f"{shares} are not shares of {count} members", str(members_folder / LIST), "Get the ensemble again"
        )
    ours = [number for number in range(count) if str(number) not in foreign]
    record_files.verify_seal(
        members_folder, needed=(LIST, *(f"{number}/{name}" for number in ours for name in (RECORD, WEIGHTS)))
    )
    return record


def _are_shares(shares: Any, count: int) -> bool:
    numbers = isinstance(shares, list) and all(isinstance(one, (int, float)) and one > 0 for one in shares)
    return numbers and len(shares) == count and math.isclose(sum(shares), 1.0, abs_tol=ROUNDING)


class Conversion(NamedTuple):
    """A change from one scale to another: values * scale + offset, held within low and high."""

    scale: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf


def is_ours(model: Model) -> bool:
    """Whether a model was trained here, so that its networks have checkpoints of ours."""
    return ORIGIN not in model.record


def share_scale(members: Sequence[Model], where: str) -> tuple[Preprocessing, tuple[Network, ...]]:
    """The preprocessing for all members, and the members as networks for images that are prepared so.

    Raises UsageError for members that differ in more than a window, a mean and a deviation.
    """
    preparations = [_ours(one, where) for one in members]
    if all(one == preparations[0] for one in preparations):
        return preparations[0], tuple(one.networks.run for one in members)
    common = widest_normalisations([one.normalisation for one in preparations])
    if common is None or any(
        replace(one, normalisation=preparations[0].normalisation) != preparations[0] for one in preparations
    ):
        raise UsageError("its members preprocess images differently", where, "Choose one with --fold")
    return replace(preparations[0], normalisation=common), tuple(_convert(one, common) for one in members)


def guard_for_scale(common: Preprocessing, member: Model) -> Guard | None:
    """The gate of a member for images that are prepared for all members; it counts voxels by its own scale."""
    guard, preprocessing = member.guard, member.preprocessing
    if guard is None or guard.look is None or preprocessing == common or not isinstance(preprocessing, Preprocessing):
        return guard
    edges = [
        # What the member clipped at a bound lies beyond it here, and belongs into the same bin.
        np.where(row >= one.high, np.inf, (row - one.offset) / one.scale)
        for row, one in zip(guard.look.edges, channel_conversions(common.normalisation, preprocessing), strict=True)
    ]
    return replace(guard, look=replace(guard.look, edges=np.stack(edges)))


def widest_normalisations(members: Sequence[Sequence[Normalisation]]) -> tuple[Normalisation, ...] | None:
    """Each channel's normalisation that keeps all that any member looks at: the widest window, else the first one's.

    None where the members differ in more than a window, a mean and a deviation.
    """
    if len({len(one) for one in members}) > 1:
        return None
    channels = list(zip(*members, strict=True))
    if any(_kind(one) != _kind(channel[0]) for channel in channels for one in channel):
        return None
    return tuple(_widest(channel) for channel in channels)


def conversion_between(normalisation: Normalisation, target: Normalisation) -> Conversion:
    """The conversion from what one normalisation made of a channel to what a member's own would have.

    Exact but for values beside the bounds of a window in an image that is resampled: the member clipped before.
    """
    if target.method == "zscore":
        return Conversion()
    low, high = _bounds(target)
    return Conversion(
        normalisation.deviation / target.deviation,
        (normalisation.mean - target.mean) / target.deviation,
        (low - target.mean) / target.deviation,
        (high - target.mean) / target.deviation,
    )


def channel_conversions(common: Sequence[Normalisation], preprocessing: Preprocessing) -> list[Conversion]:
    """The conversion of each channel of a member's network; numbers of labels stay as they are."""
    pairs = zip(common, preprocessing.normalisation, strict=True)
    converted = [conversion_between(given, scale) for given, scale in pairs for _ in range(preprocessing.moments)]
    return [*converted, *[Conversion()] * (preprocessing.cascade is not None)]


def have_own_scales(model: Model) -> bool:
    """Whether each network of a model stands behind a conversion."""
    return all(
        isinstance(one, TorchNetwork) and isinstance(one.module, bundle.network.OnItsScale)
        for one in model.networks.members
    )


def _ours(member: Model, where: str) -> Preprocessing:
    """Its preprocessing; UsageError for a member of another program, whose folds its own folder holds together."""
    if not isinstance(member.preprocessing, Preprocessing):
        raise UsageError("its members use another program's preprocessing", where, "Give that program's own folder")
    return member.preprocessing


def _convert(member: Model, common: Sequence[Normalisation]) -> TorchNetwork:
    assert isinstance(member.networks.run, TorchNetwork)  # noqa: S101 - as it was loaded
    preprocessing = _ours(member, "model")
    module = bundle.network.OnItsScale(
        member.networks.run.module, preprocessing.inputs
    )  # the conversion becomes part of its state
    scales = channel_conversions(common, preprocessing)
    for name in Conversion._fields:
        setattr(module, name, torch.tensor([getattr(one, name) for one in scales]))
    return TorchNetwork(module.eval().to(member.networks.run.device), member.networks.run.device)


def _kind(normalisation: Normalisation) -> tuple[object, ...]:
    """The settings that members must have in common: the method, and the range that becomes 0 to 1."""
    if normalisation.method == "range":
        return (normalisation.method, normalisation.low, normalisation.high)
    return (normalisation.method,)


def _widest(channel: Sequence[Normalisation]) -> Normalisation:
    first = channel[0]
    if first.method != "window":
        return first
    bounds = [_bounds(one) for one in channel]
    return replace(first, low=min(low for low, _ in bounds), high=max(high for _, high in bounds))


def _bounds(normalisation: Normalisation) -> tuple[float, float]:
    """Between which values mean and deviation are counted."""
    if normalisation.method == "range":
        return 0.0, 1.0
    assert normalisation.low is not None and normalisation.high is not None  # noqa: S101 - the plan's schema sees to it
    return normalisation.low, normalisation.high


# Of a device's free memory, what weights may take: the rest is for what is alive of the layers.
SHARE = 0.5
# One network visits at a time: threads that share a model would send each other's home.
_turn = threading.Lock()


@dataclass(frozen=True)
class VisitingNetwork(TorchNetwork):
    """A network that rests in the machine's memory, and is on the device while a batch goes through.

    resting: the network as it was read, which may give the features at which a gate looks
    """

    resting: TorchNetwork = field(kw_only=True)

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with self._on_device() as network:
            return network(*batch)

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, of a network of bags."""
        with self._on_device() as network:
            return network.encoded(tiles)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag."""
        with self._on_device() as network:
            return network.pooled(features, places)

    @contextmanager
    def _on_device(self) -> Iterator[TorchNetwork]:
        with _turn:
            try:
                self.module.to(self.device)
                yield replace(self.resting, device=self.device)
            finally:
                self.module.to("cpu")


def may_fit_on_device(weights: Sequence[Path], device: str) -> bool:
    """Whether these files' weights may all lie on the device; a processor's memory is the machine's own."""
    if not device.startswith(CUDA):
        return True
    return sum(one.stat().st_size for one in weights) <= SHARE * hardware.gpu_memory(device)


def _is_on(network: Network, device: str) -> bool:
    """Whether a network's weights lie on a device."""
    parameters = network.module.parameters() if isinstance(network, TorchNetwork) else iter(())
    return next((one.device == torch.device(device) for one in parameters), False)


def place_on_device(model: Model, weights: Sequence[Path], device: str) -> Model:
    """A model of one network or several, read into the machine's memory, as it computes on a device.

    weights: the files that they were read from; of a model of another program, which is where it computes, one
    """
    if model.members:
        placed, rest = list[Model](), list(weights)
        for one in model.members:
            count = len(one.networks.members) if is_ours(one) else 1
            files, rest = rest[:count], rest[count:]
            placed.append(place_on_device(one, files, device) if is_ours(one) else one)
        # Watched, where a gate looks at its features.
        return replace(model, networks=placed[0].networks, members=tuple(placed)).with_guard(model.guard)
    # Members of an ensemble of these, or with other shares, lie there already.
    fits = may_fit_on_device(
        [one for one, own in zip(weights, model.networks.members, strict=True) if not _is_on(own, device)], device
    )
    if not fits:
        log.warning("the members' weights do not fit on %s together: each is brought there for its turn", device)
    members = list[Network]()
    for network in model.networks.members:
        assert isinstance(network, TorchNetwork)  # noqa: S101 - as they were read
        members.append(
            replace(network, module=network.module.to(device), device=device)
            if fits
            else VisitingNetwork(network.module, device, resting=network)
        )
    average = model.networks.average
    return model.with_run(members[0] if average is None else replace(average, members=tuple(members)))
