"""`federate`: one model from the images of several sites, which stay where they are."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hilum import keywords, work_state
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.federation import federated_run, parties, shared_cases
from hilum.federation.exchanges import FEDERATION, NAME, LocalCarrier
from hilum.federation.federated_job import FederatedJob
from hilum.federation.federated_run import JOB, SITES_FOLDER, JobEnd, JobRecord
from hilum.federation.parties import PROCESSES, PartyProcesses
from hilum.federation.site import Site
from hilum.files.storage import file_lock
from hilum.options.training import FederatedJobOptions, FederateOptions
from hilum.planning import plan_checks, plan_file
from hilum.reading import ReadingOptions, verb_results
from hilum.reading.dataset_reading import Data
from hilum.runs import plan_request
from hilum.runs.plan_request import USUAL_MINUTES, PlanRequest
from hilum.runtime import record_files
from hilum.runtime.model_files import REPORT
from hilum.scoring import model_verdict
from hilum.scoring.case_scoring import EVALUATION, SUMMARY
from hilum.verbs.train import Run

MARKS = (f"{FEDERATION}/{JOB}", "plan.yaml")


@keywords.takes(FederateOptions)
def federate(options: FederateOptions) -> Run:
    """Train over sites within `minutes` from now: agree, plan by stand-ins, train in rounds, score at each site.

    sites:   {name: data}, or "NAME=DATA" of each
    rounds:  how often the sites' weights become common ones, by `federation.method`
    out:     the job's folder, a run; each site's own, with its split and checkpoints, is `<out>.sites/<name>`
    resume:  the folder of a job that was stopped, which goes on from its last whole round
    min_sites: fewest sites with which a round counts
    transport: "local": sites take turns in this process; "mtls": a process each, which NVFlare joins by mutual TLS
    membership: at the end each site attacks the model, and sends what came of it
    round_timeout: s that a site has for an answer; restarts: after the loss of a process, so often
    deterministic: two jobs on one machine are alike to the bit; needs a number of steps
    Raises what `plan` and `train` raise, naming the site; UsageError for a wrong combination of arguments.
    """
    began = work_state.command_start()
    if (options.sites is None) == (options.resume is None):
        remedy = "Call `hilum federate NAME=DATA NAME=DATA --out JOB` or `hilum federate --resume JOB`"
        raise UsageError("give either the data of sites or a job to resume", "federate", remedy)
    if options.resume is not None:
        return _resume(Path(options.resume), options, began)
    sites = named_sites(options.sites or {})
    if options.out is None:
        raise UsageError("a job needs a folder to be written into", "federate", "Give --out JOB")
    out = Path(options.out)
    record = new_record(options, options.transport, len(sites))
    verb_results.refuse_taken(out, options.overwrite, MARKS)
    verb_results.refuse_taken(private := _private(out), options.overwrite, (PROCESSES,))
    request = job_request(options, options.reading)
    with file_lock.hold_lock(out):
        with in_place_of(out, private):
            _run_sites(out, sites, request, record, began)
        return read_run(out, began)


@contextmanager
def in_place_of(out: Path, private: Path | None = None) -> Iterator[None]:
    """Older folders of a job are gone within; where the new one was never begun they come back, and it leaves nothing.

    private: that of the sites on this machine
    """
    folders = [out, *([] if private is None else [private])]
    older = {one: one.with_name(f".{one.name}.replaced") for one in folders if one.exists()}
    for one, aside in older.items():
        shutil.rmtree(aside, ignore_errors=True)
        one.rename(aside)
    try:
        yield
    except BaseException:
        if not out.exists():  # nothing to go on from
            for one in folders:
                shutil.rmtree(one, ignore_errors=True)
            for one, aside in older.items():
                aside.rename(one)
        raise
    finally:
        for aside in older.values():
            shutil.rmtree(aside, ignore_errors=True)


def _run_sites(
    out: Path, sites: Mapping[str, Data | None], request: PlanRequest, record: JobRecord, began: float
) -> None:
    """All rounds, of sites in this process or in one each; those of a job that goes on know their data."""
    private = _private(out)
    if record.transport == "mtls":
        parties.run_on_loopback(out, private, _paths_of(sites), request, record, began)
        return
    made = [Site(name, data, private / name, request, began) for name, data in sites.items()]
    PartyProcesses(private).note()
    carrier = LocalCarrier({one.name: one.answer for one in made})

    def find_shared() -> Iterator[str]:
        return shared_cases.shared_sentences({one.name: one.examination for one in made})

    FederatedJob(out, carrier, record, began, find_shared).run(request)


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


def _paths_of(sites: Mapping[str, Data | None]) -> dict[str, str]:
    """Where data lie; UsageError for those that are nowhere but in this process."""
    for name, data in sites.items():
        if not isinstance(data, str | Path | None):
            raise UsageError(f"the data of {name} lie in this process alone", "--transport mtls", "Give their path")
    return {name: str(Path(data).absolute()) if isinstance(data, str | Path) else "" for name, data in sites.items()}


def new_record(options: FederatedJobOptions, transport: str, count: int) -> JobRecord:
    """What is asked of a job over so many sites; UsageError for more than there are."""
    if (options.min_sites or 1) > count:
        raise UsageError(f"{options.min_sites} of {count} sites", "--min-sites", "Give less")
    names = ("rounds", "min_sites", "round_timeout", "restarts", "membership")
    named = {name: getattr(options, name) for name in names}
    by_clock = "training.steps" not in (options.assignments or {})
    return JobRecord(transport, minutes=options.minutes or USUAL_MINUTES, by_clock=by_clock, **named)


def job_request(options: FederatedJobOptions, reading: ReadingOptions) -> PlanRequest:
    """What a person wishes of the plan of a job."""
    fixed = {"training.deterministic": True} if options.deterministic else {}
    assignments = {**fixed, **plan_request.positive_among(options.assignments or {}, options.positive)}
    plan_checks.check_wishes(assignments, device="cpu")  # of devices each machine has its own
    names = ("minutes", "device", "threads", "seed", "task", "everything")
    return PlanRequest(**{name: getattr(options, name) for name in names}, assignments=assignments, reading=reading)


def read_resumable(out: Path, options: FederatedJobOptions, bare_options: FederatedJobOptions) -> JobRecord:
    """What was agreed about a job that goes on; bare_options: those without any other flag, which is refused."""
    record = federated_run.read_job(out)
    if (out / REPORT).is_file():
        raise UsageError("is a finished job", str(out), "Begin another with another --out")
    if options != bare_options:
        problem = "no other flag can be given with a job to resume"
        raise UsageError(problem, "--resume", "Leave it out: a job keeps the plan that it started with")
    return record


def _resume(out: Path, options: FederateOptions, began: float) -> Run:
    """Go on with a job as it was left: its sites' folders say where their data are."""
    record = read_resumable(out, options, FederateOptions(resume=options.resume))
    with file_lock.hold_lock(out):
        _run_sites(out, dict.fromkeys(record.parties), PlanRequest(), record, began)
        return read_run(out, began)


def read_run(out: Path, began: float) -> Run:
    """What a finished job has come to."""
    planned, minutes = plan_file.read_plan(out / "plan.yaml"), (time.monotonic() - began) / 60
    primary, task = str(planned["evaluation.primary"]), plan_checks.checked_settings(planned).task
    file = out / EVALUATION / SUMMARY
    is_scored = file.is_file()
    rows = case_tables.rows_from_json(record_files.read_json(file, case_tables.SUMMARY_SCHEMA)) if is_scored else []
    headline = tuple(model_verdict.headline_rows(rows, primary, task)) if rows else ()
    notes = (JobEnd(out, federated_run.read_job(out), {}, minutes).sentence,)
    steps = int(planned["training.steps"])
    return Run(out, tuple(rows), primary, steps, minutes, notes, headline=headline, metrics=task.metrics)


def _private(out: Path) -> Path:
    return out.with_name(f"{out.name}{SITES_FOLDER}")
