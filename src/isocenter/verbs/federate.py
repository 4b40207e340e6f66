"""`federate`: one model from the images of several sites, which stay where they are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter import keywords, work_state
from isocenter.errors import UsageError
from isocenter.federation import federated_run
from isocenter.federation.exchanges import FEDERATION, LocalCarrier
from isocenter.federation.federated_job import FederatedJob
from isocenter.federation.federated_run import JOB, SITES_FOLDER, JobEnd, JobRecord
from isocenter.federation.site import Site
from isocenter.files.storage import atomic, file_lock
from isocenter.options.training import FederateOptions
from isocenter.planning import plan_checks, plan_file
from isocenter.reading import verb_results
from isocenter.reading.dataset_reading import Data
from isocenter.runs import plan_request
from isocenter.runs.plan_request import USUAL_MINUTES, PlanRequest
from isocenter.runtime import record_files
from isocenter.runtime.model_files import REPORT
from isocenter.scoring import model_verdict
from isocenter.verbs.train import Run

MARKS = (f"{FEDERATION}/{JOB}", "plan.yaml")
# A name that is also that of a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
PROCESSES = "processes.json"


@keywords.takes(FederateOptions)
def federate(options: FederateOptions) -> Run:
    """Train over sites within `minutes` from now: agree, plan by stand-ins, train in rounds, score at each site.

    sites:   {name: data}, or "NAME=DATA" of each
    rounds:  how often the sites' weights become common ones, by `federation.method`
    out:     the job's folder, a run; each site's own, with its split and checkpoints, is `<out>.sites/<name>`
    resume:  the folder of a job that was stopped, which goes on from its last whole round
    min_sites: fewest sites with which a round counts
    deterministic: two jobs on one machine are alike to the bit; needs a number of steps
    Raises what `plan` and `train` raise, naming the site; UsageError for a wrong combination of arguments.
    """
    began = work_state.command_start()
    if (options.sites is None) == (options.resume is None):
        remedy = "Call `isocenter federate NAME=DATA NAME=DATA --out JOB` or `isocenter federate --resume JOB`"
        raise UsageError("give either the data of sites or a job to resume", "federate", remedy)
    if options.resume is not None:
        return _resume(Path(options.resume), options, began)
    sites = named_sites(options.sites or {})
    if options.out is None:
        raise UsageError("a job needs a folder to be written into", "federate", "Give --out JOB")
    out = Path(options.out)
    if (options.min_sites or 1) > len(sites):
        raise UsageError(f"{options.min_sites} of {len(sites)} sites", "--min-sites", "Give less")
    verb_results.refuse_taken(out, options.overwrite, MARKS)
    verb_results.refuse_taken(private := _private(out), options.overwrite, (PROCESSES,))
    request = _request(options)
    minutes, by_clock = options.minutes or USUAL_MINUTES, "training.steps" not in request.assignments
    record = JobRecord("local", options.rounds, minutes, by_clock, options.min_sites)
    with file_lock.hold_lock(out):
        parties = {name: Site(name, data, private / name, request, began).answer for name, data in sites.items()}
        job = FederatedJob(out, LocalCarrier(parties), record, began)
        _note_processes(private)
        try:
            job.open(request)
        except BaseException:
            if not out.exists():  # nothing to go on from
                shutil.rmtree(private, ignore_errors=True)
            raise
        return _finish(job)


def named_sites(sites: Mapping[str, Data] | Sequence[str]) -> dict[str, Data]:
    """{name: data}; UsageError for a site without a name, two of one, or a name that is no folder's."""
    items = sites.items() if isinstance(sites, Mapping) else [one.partition("=")[::2] for one in sites]
    pairs: list[tuple[str, Data]] = [(name, data) for name, data in items]
    names, remedy = [name for name, _ in pairs], "Give each site as NAME=DATA"
    if not names:
        raise UsageError("there is no site", "federate", remedy)
    for name, data in pairs:
        if not NAME.fullmatch(name):
            problem = f"{name!r} cannot be the name of a site"
            raise UsageError(problem, "federate", "Use letters, digits, dots and dashes: its folder has that name")
        if isinstance(data, str) and not data:
            raise UsageError(f"{name} names no data", "federate", remedy)
        if names.count(name) > 1:
            raise UsageError(f"two sites are called {name}", "federate", "Give each a name of its own")
    return dict(pairs)


def _request(options: FederateOptions) -> PlanRequest:
    fixed = {"training.deterministic": True} if options.deterministic else {}
    assignments = {**fixed, **plan_request.positive_among(options.assignments or {}, options.positive)}
    names = ("minutes", "device", "threads", "seed", "task", "everything", "reading")
    return PlanRequest(**{name: getattr(options, name) for name in names}, assignments=assignments)


def _resume(out: Path, options: FederateOptions, began: float) -> Run:
    """Go on with a job as it was left: its sites' folders say where their data are."""
    record = federated_run.read_job(out)
    if (out / REPORT).is_file():
        raise UsageError("is a finished job", str(out), "Begin another with another --out")
    if options != FederateOptions(resume=options.resume):
        problem = "no other flag can be given with a job to resume"
        raise UsageError(problem, "federate", "Leave it out: a job keeps the plan that it started with")
    with file_lock.hold_lock(out):
        parties = {name: Site(name, None, _private(out) / name, PlanRequest(), began).answer for name in record.parties}
        job = FederatedJob(out, LocalCarrier(parties), record, began)
        job.resume()
        return _finish(job)


def _finish(job: FederatedJob) -> Run:
    """All rounds, and what they have come to."""
    try:
        state = job.train()
        end = JobEnd(job.out, job.record, job.finish(state), job.spent / 60)
        rows = end.write(state.averages)
    except OSError as error:  # of the system: all that is read raises errors of ours
        raise atomic.unwritable_error(error, Path(error.filename or job.out)) from error
    planned = plan_file.read_plan(job.out / "plan.yaml")
    primary, task = str(planned["evaluation.primary"]), plan_checks.checked_settings(planned).task
    headline = tuple(model_verdict.headline_rows(rows, primary, task)) if rows else ()
    shown: dict[str, Any] = {"headline": headline, "metrics": task.metrics}
    return Run(job.out, tuple(rows), primary, state.began, job.spent / 60, (end.sentence,), **shown)


def _private(out: Path) -> Path:
    return out.with_name(f"{out.name}{SITES_FOLDER}")


def _note_processes(folder: Path) -> None:
    """Who computes, for whoever has to end it: here one process does."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"party": "server", "pid": os.getpid(), "port": None}]
    record_files.write_json(folder / PROCESSES, "isocenter.processes", {"rows": rows})
