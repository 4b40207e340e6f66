"""Models of several trainings as one, and the folder that holds them.

`members/` of an ensemble is sealed as a whole: each member's own checkpoint, and `ensemble.json` with how much each
counts, how all are decoded together, and through which windows they look.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter.errors import IntegrityError
from isocenter.files import written
from isocenter.runtime import bundle
from isocenter.runtime.codes import CODES
from isocenter.runtime.ensemble.common_scale import guard_on, on_one_scale
from isocenter.runtime.guard.answering import strictest
from isocenter.runtime.inference import Inference
from isocenter.runtime.model import Model
from isocenter.runtime.model_record import read_parts
from isocenter.runtime.networks import Networks
from isocenter.runtime.package.contents import MOST_MEMBERS, RECORD, WEIGHTS
from isocenter.runtime.parts import PART_FILES, Parts
from isocenter.runtime.record_files import joined, read_json, seal, verify, write_json
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.averaging import Averaged
from isocenter.tasks import settings_of

if TYPE_CHECKING:
    from isocenter.tasks import Task

MEMBERS, LIST, SCHEMA = "members", "ensemble.json", "isocenter.ensemble"
GUARD = "guard"
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
    record, members = _record(members, shares), on_one_context(members)
    preprocessing, networks = on_one_scale(members, where)
    run = Averaged(networks, task.average, shares, each=task.crossed)
    each = tuple(one.networks.architecture for one in members)
    first, each = each[0], each if any(one != each[0] for one in each) else ()
    if "first_entry" in first:
        first = {**first, "context": [one.networks.architecture.get("context") for one in members]}
    # The gate of the first, whose features are looked at, stands for all; of doubt the most careful one decides.
    guard = guard_on(preprocessing, members[0])
    if guard is not None:
        guard = replace(guard, answers=strictest([one.guard.answers for one in members if one.guard is not None]))
    return Model(task, preprocessing, inference, Networks(run, first, each), record).with_guard(guard)


def on_one_context(members: Sequence[Model]) -> Sequence[Model]:
    """The members for one context of all their covariates, where they do not have the same."""
    contexts = [one.networks.architecture.get("context") for one in members]
    if all(one == contexts[0] for one in contexts):
        return members
    made, first = [], 0
    for member in members:
        own = member.networks
        assert isinstance(own.run, TorchNetwork)  # noqa: S101 - as it was loaded
        count = len(own.context)
        run = TorchNetwork(bundle.OnItsEntries(own.run.module, first, count).eval(), own.run.device)
        networks = replace(own, run=run, architecture={**own.architecture, "first_entry": first})
        made.append(replace(member, networks=networks))
        first += count
    return made


def _record(members: Sequence[Model], shares: tuple[float, ...] | None) -> dict[str, Any]:
    """The record of a model of several: what holds for all of them, and the record of each."""
    records = [dict(one.record) for one in members]
    common = {key: value for key, value in records[0].items() if all(one.get(key) == value for one in records)}
    digests = [str(one.get("weights_sha256", "")) for one in records]
    counted = {} if shares is None else {"shares": list(shares)}
    # Members may know the codes of different names; of one name the first member's hold.
    codes = {name: coded for one in reversed(records) for name, coded in (one.get(CODES) or {}).items()}
    common |= {CODES: codes} if codes else {}
    return {**common, **counted, "weights_sha256": joined([*digests, *map(str, shares or ())]), "members": records}


def write_members(checkpoints: Sequence[Path], model: Model, notes: Mapping[str, Any], folder: Path) -> None:
    """The members' checkpoints, and how they are one, into `members/` of an existing folder.

    model: of all of them
    notes: further entries of the record
    """
    with written(folder / MEMBERS, overwrite=True) as place:
        place.mkdir()
        _write_members(checkpoints, model, notes, place)


def _write_members(checkpoints: Sequence[Path], model: Model, notes: Mapping[str, Any], place: Path) -> None:
    for number, checkpoint in enumerate(checkpoints):
        (place / str(number)).mkdir()
        for name in filter(lambda name: (checkpoint / name).is_file(), (RECORD, WEIGHTS, *PART_FILES.values())):
            shutil.copyfile(checkpoint / name, place / str(number) / name)
        seal(place / str(number))
    record = {
        "task": {"name": model.task.name, **settings_of(model.task)},
        "inference": model.inference.settings,
        "members": len(checkpoints),
        "shares": model.networks.shares,
        **notes,
    }
    if len(model.networks.members) == len(checkpoints):
        gate = Parts(guard=model.guard)
        gate.write(place)
        record |= gate.settings
    write_json(place / LIST, SCHEMA, record)
    seal(place)


def with_own_guard(model: Model, record: Mapping[str, Any], folder: Path) -> Model:
    """The model with the gate that was fitted for all of its members, where its `ensemble.json` names one."""
    return model.with_guard(read_parts({GUARD: record.get(GUARD)}, folder / MEMBERS).guard)


def read_list(folder: Path) -> dict[str, Any]:
    """`members/ensemble.json` of an ensemble; IntegrityError where a file of `members/` is not what was written."""
    place = folder / MEMBERS
    record = read_json(place / LIST, SCHEMA)
    count, shares = record.get("members"), record.get("shares")
    if not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        raise IntegrityError(f"has {count} members", str(place / LIST), "Get the ensemble again")
    if shares is not None and not _are_shares(shares, count):
        raise IntegrityError(f"{shares} are not shares of {count} members", str(place / LIST), "Get the ensemble again")
    verify(place, needed=(LIST, *(f"{number}/{name}" for number in range(count) for name in (RECORD, WEIGHTS))))
    return record


def _are_shares(shares: Any, count: int) -> bool:
    numbers = isinstance(shares, list) and all(isinstance(one, (int, float)) and one > 0 for one in shares)
    return numbers and len(shares) == count and math.isclose(sum(shares), 1.0, abs_tol=ROUNDING)
