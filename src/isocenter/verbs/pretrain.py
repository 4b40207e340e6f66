"""`pretrain`: from images without references to a network that later trainings start from."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import UsageError
from isocenter.keywords import several, takes
from isocenter.objectives import objective_kind
from isocenter.options import PretrainOptions
from isocenter.runs import PlanRequest, in_all_processes
from isocenter.verbs.train import Run, absolute, run_for

TASK, TERMS = "representation", "objectives.terms"


@takes(PretrainOptions)
@in_all_processes
def pretrain(options: PretrainOptions) -> Run:
    """Train a network on images whatever is known of them, within `minutes` from now (60 unless a plan says otherwise).

    The folder is that of a run of the kind of problem "representation": `train(start=...)` begins from its weights, and
    `embed` writes what its network sees. References of the data are never read.
    All else is as in `train`. Raises what `train` raises; PlanError for an objective that cannot teach these images;
    IsocenterError where the features collapse.
    """
    data = None if options.data is None else several(options.data)
    first, further = (None, ()) if not data else (data[0], data[1:])
    by_hand = {
        **({"training.deterministic": True} if options.deterministic else {}),
        **({"network.pretrained": absolute(options.pretrained)} if options.pretrained is not None else {}),
        **(options.assignments or {}),
    }
    if options.objective is not None:
        objective_kind(options.objective)  # refused before anything is read
        if TERMS in by_hand:
            raise UsageError(f"conflicts with --set {TERMS}", "--objective", "Give one of the two")
        by_hand[TERMS] = [options.objective]
    request = PlanRequest(
        options.minutes,
        options.device,
        options.threads,
        options.seed,
        None if first is None else TASK,
        options.everything,
        None,
        by_hand,
        options.reading,
        further=tuple(str(Path(place).resolve()) for place in further),
        leave_out=None if options.leave_out is None else str(Path(options.leave_out).resolve()),
    )
    return run_for(
        first, request, start=options.start, out=options.out, overwrite=options.overwrite, resume=options.resume
    )
