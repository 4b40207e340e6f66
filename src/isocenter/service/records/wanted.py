"""Jobs that belong to a study as it is, and reasons why another one no longer does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wanted:
    """A job that the rules want of a study.

    inputs: as those of `Job`
    """

    rule: str
    model_hash: str
    inputs_hash: str
    inputs: Mapping[str, Any]


def superseded_because(job: Wanted, wanted: Sequence[Wanted]) -> str | None:
    """Why a job that was wanted no longer belongs to its study; None where it does."""
    of_rule = [one for one in wanted if one.rule == job.rule]
    of_model = [one for one in of_rule if one.model_hash == job.model_hash]
    if any(one.inputs_hash == job.inputs_hash for one in of_model):
        return None
    if not of_rule:
        return "its rule is gone, waits for an answer, or takes no series of the study now"
    if not of_model:
        return "its rule has another model now"
    of_series = [one for one in of_model if one.inputs["series"] == job.inputs["series"]]
    if not of_series:
        return "its rule takes other series now"
    if all(one.inputs.get("inside") != job.inputs.get("inside") for one in of_series):
        return "its rule looks within another answer, label or margin now"
    return "the study has grown, and its inputs have changed"
