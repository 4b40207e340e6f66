"""`train`: from a folder, or from an edited plan, to a model that has been evaluated."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from isocenter.errors import IntegrityError, UsageError, counted
from isocenter.evaluation import rows_to_json
from isocenter.files import dataset_hash, unwritable, write_text, written
from isocenter.planning import Settings, plan_text, read_plan, settings, with_settings
from isocenter.runtime import (
    Model,
    TorchNetwork,
    build_module,
    choose_device,
    environment,
    load,
    read_json,
    verify,
    write_json,
)
from isocenter.training import Clock, Moment, Prepared, fitting, prepare_all, recover
from isocenter.training import train as follow
from isocenter.values import Case, Dataset, Decision, Plan, Problem, Row, Split
from isocenter.verbs.dataset import VOXELS, looked_through, open_dataset, refuse_unfit
from isocenter.verbs.output import refuse_taken
from isocenter.verbs.plan import Planned, relative_to
from isocenter.verbs.plan import plan as make
from isocenter.verbs.progress import tracked
from isocenter.verbs.run_report import report
from isocenter.verbs.scoring import Scored, read_split, score, split_table

log = logging.getLogger("isocenter")
REPORT = "report.html"
# What tells a run's folder from any other.
MARKS = ("plan.yaml", "split.csv")
# Arrays are kept in memory while they take less than this share of what is free.
MEMORY_SHARE = 0.3
# s for the summary, the pictures and the report.
REPORT_SECONDS = 12.0
# Of the minutes, as a reserve for what was not foreseen.
RESERVE = 0.02


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; prints its headline and where everything lies."""

    out: Path
    rows: tuple[Row, ...]
    primary: str
    steps: int
    minutes: float
    notes: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        return self.out / REPORT

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        found = {"out": str(self.out), "report": str(self.report), "steps": self.steps, "minutes": self.minutes}
        return {**rows_to_json(self.rows), **found, "notes": list(self.notes)}

    def __repr__(self) -> str:
        said = [f"{row.metric} {row.label}: {row.estimate}" for row in self.rows if row.metric == self.primary]
        said = said or ["no estimate: every case was trained on"]
        return "\n".join([*said, *self.notes, f"{self.steps} steps in {self.minutes:.1f} min", str(self.report)])


def train(
    data: str | Path | Dataset | None = None,
    *,
    minutes: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    start: str | Path | None = None,
    everything: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    task: str | None = None,
    assignments: Mapping[str, Any] | None = None,
    **given: Any,
) -> Run:
    """Check, plan, prepare, train, evaluate and report, within `minutes` from now (60 unless a plan says otherwise).

    data:    a folder, or a plan's .yaml
    out:     the run's folder, made anew
    resume:  a run's folder to finish, in place of `data`
    start:   a model whose weights to begin from
    Raises what `check` and `plan` raise; UsageError for a wrong combination of arguments.
    """
    began = time.monotonic()
    if (data is None) == (resume is None):
        raise UsageError("give either data or a run to resume", "train", "`train DATA` or `train --resume RUN`")
    flags = {
        "minutes": minutes,
        "everything": everything,
        "device": device,
        "threads": threads,
        "seed": seed,
        "task": task,
    }
    if resume is not None:
        folder = Path(resume)
        _refuse_beside_resume({**flags, **given, "assignments": assignments, "from": start, "out": out})
        prepared, weights = _resumed(folder), None
    else:
        assert data is not None  # noqa: S101 - seen to above
        if out is None:
            raise UsageError("a run needs a folder to be written into", "train", "Give out=FOLDER")
        folder = Path(out)
        refuse_taken(folder, overwrite, MARKS)
        weights = _weights(Path(start)) if start is not None else None
        made = _planned(data, flags, assignments or {}, given)
        if weights is not None:
            chosen = settings(made.plan)
            fitting(build_module(chosen.task, chosen.architecture), weights)  # refused before the folder is there
        prepared = _begun(folder, made)
    try:
        return _follow(prepared, began, weights)
    except OSError as error:  # of the system: all that is read raises errors of ours
        raise unwritable(error, Path(error.filename or folder)) from error


def _refuse_beside_resume(flags: Mapping[str, Any]) -> None:
    """A resumed run follows its own plan: what would change it is not taken silently."""
    given = [name for name, value in flags.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be given with a run to resume", "train", "Leave it out")


@dataclass(frozen=True, eq=False)
class _Prepared:
    """All that training needs: the run's folder, the plan, the cases and who is in which part."""

    out: Path
    plan: Plan
    dataset: Dataset
    parts: Mapping[str, Split]
    problems: tuple[Problem, ...]
    resume: bool = False
    spent: float = 0.0


def _planned(
    data: str | Path | Dataset,
    flags: Mapping[str, Any],
    assignments: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Planned:
    if not isinstance(data, Dataset) and Path(data).suffix.lower() in (".yaml", ".yml"):
        return _from_plan(Path(data), flags, assignments, given)
    known: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    return make(data, assignments=assignments, **known, **given)


def _begun(out: Path, made: Planned) -> _Prepared:
    """The run's folder with what was decided, before anything is trained; an older one is replaced."""
    dataset, plan = made.examination.dataset, made.plan
    if plan.data and Path(plan.data).resolve().is_relative_to(out.resolve()):
        raise UsageError("holds the data, so no run is written over it", str(out), "Choose another --out")
    with written(out, overwrite=True) as partial:
        partial.mkdir()
        split_table(dataset.cases, made.parts).to_csv(partial / "split.csv", index=False)
        write_text(partial / "plan.yaml", plan_text(relative_to(plan, out)))
    return _Prepared(out, plan, dataset, made.parts, made.examination.problems)


def _from_plan(
    path: Path, flags: Mapping[str, Any], assignments: Mapping[str, Any], given: Mapping[str, Any]
) -> Planned:
    """An edited plan decides; a flag beside it decides over the plan, and is recorded as set by hand."""
    if not path.is_file():
        raise UsageError("there is no such plan", str(path), "Check the path")
    edited = read_plan(path)
    if flags["task"] not in (None, edited["task.name"]):
        raise UsageError(f"is a plan for {edited['task.name']}", str(path), "Plan anew for another --task")
    by_flag = {
        f"training.{key}": flags[key] for key in ("minutes", "device", "threads", "seed") if flags[key] is not None
    }
    if flags["device"] is not None:
        by_flag["training.device"] = choose_device(flags["device"]).value
    if flags["minutes"] is not None and not edited["training.deterministic"]:
        steps = Decision(None, "--minutes was given: a probe turns them into steps when training starts")
        edited = edited.with_decision("training.steps", steps)
    edited = with_settings(edited, {**by_flag, **assignments})
    settings(edited)  # refuses what cannot be followed before the data are read
    seed = int(edited["training.seed"])
    options = {**edited.options, **{key: value for key, value in given.items() if value}}
    everything = bool(options.pop("everything", False) or flags["everything"])
    source = Path(path.parent, edited.data)
    made = make(
        source,
        minutes=edited["training.minutes"] or 60.0,
        device=edited["training.device"],
        threads=edited["training.threads"],
        seed=seed,
        everything=everything,
        task=edited["task.name"],
        **options,
    )
    if made.plan.data_hash != edited.data_hash:
        log.warning("%s: the data are not those that were planned for; the run records what they are now", path)
    edited = edited.with_decision("split.method", made.plan.decision("split.method"))  # drawn again, by this seed
    found: dict[str, Any] = {key: getattr(made.plan, key) for key in ("data", "data_hash", "options")}
    return replace(made, plan=replace(edited, **found))


def _resumed(out: Path) -> _Prepared:
    """A run as it was left: its plan with the steps already decided, its split, its data if they are unchanged."""
    if not (out / "plan.yaml").is_file():
        raise UsageError("holds no run", str(out), "Give the folder of a run that was begun")
    if (out / REPORT).is_file():
        raise UsageError("is a finished run", str(out), "Train anew with another --out")
    for name in ("last", "best"):
        recover(out / "checkpoints" / name)
    plan = read_plan(out / "plan.yaml")
    options = dict(plan.options)
    options.pop("everything", None)
    examination = looked_through(open_dataset(out / plan.data, options), int(plan["training.threads"]))
    refuse_unfit(examination)
    dataset = examination.dataset
    if dataset_hash(dataset) != plan.data_hash:
        raise IntegrityError("the data have changed since the run began", str(out), "Train anew with another --out")
    table = read_split(out / "split.csv")
    parts: dict[str, Split] = dict(zip(table["case"], table["split"], strict=True))
    state = out / "checkpoints" / "last" / "state.json"
    spent = float(read_json(state, "isocenter.state")["seconds"]) if state.is_file() else 0.0
    return _Prepared(
        out, replace(plan, data=str(out / plan.data)), dataset, parts, examination.problems, state.is_file(), spent
    )


def _follow(run: _Prepared, began: float, weights: Path | None) -> Run:
    """Prepare, train, evaluate, report."""
    chosen = settings(run.plan)
    choose_device(chosen.training.device)  # refuses one that this machine lacks
    write_json(run.out / "environment.json", "isocenter.environment", environment())
    cases = {part: [case for case in run.dataset if run.parts[case.id] == part] for part in ("train", "val", "test")}
    ready = _ready([*cases["train"], *cases["val"]], chosen, run.plan.options)
    deadline, minutes = None, chosen.training.minutes
    if chosen.training.steps is None and minutes is not None:
        left_for_test = REPORT_SECONDS + len(cases["test"]) * _seconds_a_case(cases, chosen)
        deadline = 60 * minutes * (1 - RESERVE) - left_for_test
    elif not run.resume:
        log.info("training for %d steps, as the plan says: the minutes do not count", chosen.training.steps)
    plan = run.plan
    record = {
        "data_hash": plan.data_hash,
        "patients_known": run.dataset.patients_known,
        "primary": plan["evaluation.primary"],
        "environment": environment(),
    }

    def decided(steps: int, validations: int, because: str) -> None:
        nonlocal plan
        plan = plan.with_decision("training.steps", Decision(steps, because))
        plan = plan.with_decision("training.validations", Decision(validations, because))
        _write_plan(run.out, plan)
        log.info("training for %d steps: %s", steps, because)

    with tracked("training") as tracker:
        measured = ""

        def watch(moment: Moment) -> None:
            nonlocal measured
            if moment.validation is not None:
                measured = f", {chosen.training.selection} {moment.validation:.4f} of the validation cases"
            tracker(moment.step, moment.steps, f"loss {moment.loss:.3f}{measured}")

        outcome = follow(
            chosen,
            ready[: len(cases["train"])],
            ready[len(cases["train"]) :],
            run.out,
            clock=Clock(began, run.spent, deadline),
            record=record,
            resume=run.resume,
            start=weights,
            decided=decided,
            watch=watch,
        )
    model = load(outcome.checkpoint, chosen.training.device)
    known, seed = run.dataset.patients_known, chosen.training.seed
    scored = score(model, cases["test"], run.parts, seed=seed, patients_known=known) if cases["test"] else None
    if scored is not None:
        with written(run.out / "evaluation", overwrite=True) as partial:  # a killed run may have left one
            partial.mkdir()
            scored.write(partial)
    taken = (time.monotonic() - began + run.spent) / 60
    notes = _notes(run, scored)
    _write_report(run, plan, scored, notes, outcome.because, taken)
    rows = () if scored is None else tuple(scored.rows)
    return Run(run.out, rows, str(plan["evaluation.primary"]), outcome.steps, taken, tuple(notes))


def _ready(cases: list[Case], chosen: Settings, options: Mapping[str, Any]) -> list[Prepared]:
    with tracked("preparing cases") as tracker:
        return prepare_all(
            cases,
            chosen.preprocessing,
            chosen.task,
            reading={key: options[key] for key in VOXELS if options.get(key)},
            threads=chosen.training.threads,
            memory=int(MEMORY_SHARE * psutil.virtual_memory().available),
            progress=tracker,
        )


def _seconds_a_case(cases: Mapping[str, list[Case]], chosen: Settings) -> float:
    """What predicting and scoring a test case will take, measured on one case.

    Fresh weights predict ragged surfaces, which take longest to score: the estimate errs on the safe side.
    """
    network, device = chosen.architecture, chosen.training.device
    module = build_module(chosen.task, network).eval().to(device)
    model = Model(chosen.task, chosen.preprocessing, chosen.inference, network, TorchNetwork(module, device))
    case = (cases["val"] or cases["train"])[0]
    model.predict(case)  # the first call also allocates
    mark = time.monotonic()
    chosen.task.score([model.predict(case)], [case])
    return time.monotonic() - mark


def _weights(start: Path) -> Path:
    """The weights file of the model to begin from."""
    for place in (start, start / "checkpoints" / "best", start / "checkpoints" / "last"):
        if (place / "weights.safetensors").is_file():
            verify(place)
            return place / "weights.safetensors"
    if start.suffix == ".safetensors" and start.is_file():
        return start
    raise UsageError("holds no weights to begin from", str(start), "Give a run, a package or a .safetensors file")


def _notes(run: _Prepared, scored: Scored | None) -> list[str]:
    notes = []
    if not run.dataset.patients_known:
        notes.append("Patients unknown, split by case: leakage cannot be excluded.")
    left_out = {case for problem in run.problems if problem.severity == "error" for case in problem.cases}
    if left_out:
        notes.append(f"{counted(len(left_out), 'case')} could not be used, left out: see Data.")
    if scored is None:
        notes.append("Every case was trained on: nothing is estimated.")
    elif scored.problems:
        notes.append(f"{counted(len(scored.problems), 'test case')} could not be scored: see Data.")
    return notes


def _write_report(
    run: _Prepared, plan: Plan, scored: Scored | None, notes: list[str], because: str, minutes: float
) -> None:
    table = pd.read_csv(run.out / "log.csv")
    scored_problems = tuple(scored.problems) if scored is not None else ()
    page = report(
        f"Training on {run.dataset.name}",
        f"{counted(len(run.dataset), 'case')}; {plan.decision('split.method').because}.",
        primary=str(plan["evaluation.primary"]),
        scored=scored,
        notes=notes,
        facts={
            "data hash": plan.data_hash,
            "read as": run.dataset.layout,
            "patients": run.dataset.patients,
            "model": f"chosen by the {because}",
            "seed": plan["training.seed"],
            "minutes": f"{minutes:.1f}",
        },
        views="evaluation/",
        plan=plan,
        log=table,
        problems=(*run.problems, *scored_problems),
        environment=environment(),
    )
    write_text(run.out / REPORT, page, overwrite=True)


def _write_plan(out: Path, plan: Plan) -> None:
    write_text(out / "plan.yaml", plan_text(relative_to(plan, out)), overwrite=True)
