"""`dataset`: the cases of a data set as a network sees them, for whoever writes a training loop of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter import errors, keywords
from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.options.training import CasesOptions
from isocenter.planning import plan_checks
from isocenter.runs import plan_request, training_jobs
from isocenter.runs.plan_request import PlanRequest
from isocenter.training.data.prepared_store import PreparedCase
from isocenter.values import Plan
from isocenter.values.dataset_cases import SPLITS


class PreparedCases(torch.utils.data.Dataset[Mapping[str, Any]]):
    """Prepared cases, whole: {"case", "patient", "image": (channels, *spatial) float32, "target": as the task has it}.

    plan: the choices by which they were prepared: grid, intensities, targets
    """

    def __init__(self, cases: Sequence[PreparedCase], plan: Plan) -> None:
        self.cases, self.plan = tuple(cases), plan

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        case = self.cases[number].in_memory
        arrays = {
            name: torch.from_numpy(np.array(array)) for name, (_, array) in case.kind.to_arrays(case.target).items()
        }
        target = next(iter(arrays.values())) if len(arrays) == 1 else arrays
        whole = tuple(slice(None) for _ in case.shape)
        image = torch.from_numpy(np.array(case.network_input(whole)))
        return {"case": case.id, "patient": case.patient, "image": image, "target": target}


@keywords.takes(CasesOptions)
def dataset(options: CasesOptions) -> PreparedCases:
    """Return a `torch.utils.data.Dataset` of the cases of one part, prepared as `train` would prepare them.

    part:        train, val, calibration or test, as `plan` parts the patients
    assignments: {"section.name": value} of the plan set by hand
    reading:     the fields of `ReadingOptions`: layout, labels, patient, column, modality and so on
    Raises what `plan` raises, and UsageError for a part that is none or has no case.
    """
    part, reading, wishes = options.part, options.reading, options.assignments or {}
    if part not in SPLITS:
        raise UsageError(f"there is no part {part!r}", "part", f"Choose one of {errors.list_phrase(SPLITS)}")
    request = PlanRequest(None, "cpu", options.threads, options.seed, options.task, assignments=wishes, reading=reading)
    decided = plan_request.plan_from_request(options.data, request)
    cases = [case for case in decided.examination.dataset if decided.parts.get(case.id) == part]
    if not cases:
        present = [one for one in SPLITS if one in decided.parts.values()]
        raise UsageError(f"no case is in the part {part}", "part", f"Choose one of {errors.list_phrase(present)}")
    return PreparedCases(
        training_jobs.prepare_cases(cases, plan_checks.checked_settings(decided.plan), reading), decided.plan
    )
