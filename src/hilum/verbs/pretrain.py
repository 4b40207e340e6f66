"""`pretrain`: from images without references to a network that later trainings start from."""

from __future__ import annotations

from pathlib import Path

from hilum import keywords
from hilum.errors import UsageError
from hilum.objectives import objective_catalogue
from hilum.options.training import PretrainOptions
from hilum.runs import distributed
from hilum.runs.plan_request import PlanRequest
from hilum.verbs import train
from hilum.verbs.train import Run

TASK, TERMS = "representation", "objectives.terms"


@keywords.takes(PretrainOptions)
@distributed.in_all_processes
def pretrain(options: PretrainOptions) -> Run:
    """Train a network on images whatever is known of them, within `minutes` from now (60 unless a plan says otherwise).

    The folder is that of a run of the kind of problem "representation": `train(start=...)` begins from its weights, and
    `embed` writes what its network sees. References of the data are never read.
    All else is as in `train`. Raises what `train` raises; PlanError for an objective that cannot teach these images;
    HilumError where the features collapse.
    """
    data = None if options.data is None else keywords.as_tuple(options.data)
    task = TASK
    first, further = (None, ()) if not data else (data[0], data[1:])
    by_hand = {
        **({"training.deterministic": True} if options.deterministic else {}),
        **({"network.pretrained": train.absolute_path(options.pretrained)} if options.pretrained is not None else {}),
        **(options.assignments or {}),
    }
    if options.objective is not None:
        task = objective_catalogue.objective_kind(options.objective).task  # refused before anything is read
        if task != TASK:  # of one class as many as of any other
            by_hand.setdefault("training.sampling", "balanced")
            if further:
                raise UsageError("learns classes of one data set", f"--objective {options.objective}", "Give one")
        if TERMS in by_hand:
            raise UsageError(f"conflicts with --set {TERMS}", "--objective", "Give one of the two")
        by_hand[TERMS] = [options.objective]
    request = PlanRequest(
        options.minutes,
        options.device,
        options.threads,
        options.seed,
        None if first is None else task,
        options.everything,
        None,
        by_hand,
        options.reading,
        further=tuple(str(Path(place).resolve()) for place in further),
        leave_out=None if options.leave_out is None else str(Path(options.leave_out).resolve()),
    )
    return train.make_run(
        first, request, start=options.start, out=options.out, overwrite=options.overwrite, resume=options.resume
    )
