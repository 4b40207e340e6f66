"""The ledger beside a locked set: how often it was looked at, and by which plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError, OutputError, UsageError, counted
from isocenter.files import parse_json
from isocenter.monitoring.change_plan import ChangePlan

# Beside the data, whose own folder stays as it is.
LEDGER = ".looks.jsonl"


def ledger_of(data: Path) -> Path:
    """The ledger of a locked set: beside its folder or file."""
    place = data.resolve()
    return place.with_name(f"{place.name}{LEDGER}")


def take_look(ledger: Path, plan: ChangePlan, data: str, look: Mapping[str, Any]) -> int:
    """Count a look before anything is scored, and say which it is, from 1.

    data: hash of the locked set
    look: what is looked at: the hashes of the models, and when
    A look that is interrupted counts too.
    Raises IntegrityError for a plan or a set that changed after the first look, and for a damaged ledger; UsageError
    where all looks are spent.
    """
    entry = {"plan": plan.sha256, "data": data, **look}
    _refuse(_looks(ledger), plan, data, ledger)
    line = json.dumps(entry)
    try:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        remedy = "Give a locked set whose folder can be written: a look that is not counted is none"
        raise OutputError(f"cannot be written: {error.strerror}", str(ledger), remedy) from error
    # Two checks at a time: each line is written at once, and the later one is refused.
    number = len(_looks(ledger))
    if number > plan.evaluations:
        raise _spent(plan, ledger)
    return number


def _refuse(looks: list[dict[str, Any]], plan: ChangePlan, data: str, ledger: Path) -> None:
    for look in looks:
        if look["plan"] != plan.sha256:
            problem = "was edited after the locked set was looked at"
            remedy = f"Use the plan with the SHA-256 {look['plan']}, or lock a new set for a new plan"
            raise IntegrityError(problem, plan.where, remedy)
        if look["data"] != data:
            problem = "is not the set that was looked at before"
            raise IntegrityError(problem, str(ledger).removesuffix(LEDGER), "Restore it, or lock a new set")
    if len(looks) >= plan.evaluations:
        raise _spent(plan, ledger)


def _spent(plan: ChangePlan, ledger: Path) -> UsageError:
    problem = f"has had {counted(plan.evaluations, 'look')}, all that the plan allows"
    return UsageError(problem, str(ledger).removesuffix(LEDGER), "Lock a new set, with patients who tested no model")


def _looks(ledger: Path) -> list[dict[str, Any]]:
    try:
        lines = ledger.read_text(encoding="utf-8").splitlines()
        looks = [parse_json(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise IntegrityError(f"cannot be read ({error})", str(ledger), "Restore it: it counts the looks") from error
    if not all(isinstance(look, dict) and {"plan", "data"} <= set(look) for look in looks):
        raise IntegrityError("is damaged", str(ledger), "Restore it: it counts the looks")
    return looks
