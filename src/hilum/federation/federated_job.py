"""A training over sites as its server walks it: agreement, plan, rounds, figures. Each whole round is written first."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, HilumError, IntegrityError, PlanError
from hilum.evaluation import calibration_fit, case_tables
from hilum.federation import aggregation, agreement, exchanges, federated_run, site_budgets, stand_ins
from hilum.federation.aggregation import CommonState
from hilum.federation.agreement import Introduction
from hilum.federation.exchanges import (
    FEDERATION,
    ROUNDS,
    Answer,
    Arrays,
    Carrier,
    ExchangeRecords,
    Facts,
    SiteMessage,
)
from hilum.federation.federated_run import CALIBRATION, JobEnd, JobRecord
from hilum.federation.pooled_figures import SiteScores
from hilum.federation.site import AVERAGED
from hilum.files.storage import atomic
from hilum.lazy import pandas as pd
from hilum.planning import PlanSettings, plan_changes, plan_checks, plan_file, training_memory, typed_sections
from hilum.planning.plan_sections import FederationSettings
from hilum.planning.rules import privacy_rules
from hilum.quality.dataset_examination import Examination
from hilum.runs import plan_request
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import hardware
from hilum.tasks import task_catalogue
from hilum.training.length.schedule import FEWEST_STEPS, TrainingPace
from hilum.training.privacy_accounting import BudgetRow
from hilum.values import BY_HAND, Decision, PlainValue, Plan
from hilum.values.table_cells import TableRow
from hilum.work_state import log

# Below `federation/`: what the server goes on from, and updates until all of a round have come.
COMMON = "common.safetensors"
INCOMING = "incoming"
# Of the minutes, what is left for scoring, and where no site has a case to score.
OUTSIDE = 0.2
UNSCORED = 0.05
# After a round steps are planned anew where they would miss the end by more.
SLACK = 0.05
SECTION = "federation"
# What a job over sites does without, and why. A person who sets one of them is refused.
WITHOUT: Mapping[str, tuple[Any, str]] = {
    "training.validations": (1, "rounds are looked at by the server: a site looks at its validation cases at the end"),
    "training.early_stop": (None, "all sites take as many steps"),
    "training.networks": (1, "one network travels"),
    "split.inner_folds": (0, "networks of inner folds would need cases of all sites"),
    "split.calibration": (0, "guarantees need cases of all sites"),
    "guard.gate": (False, "the gate needs what the network sees in cases of all sites"),
    "evaluation.image_only": (False, "one network travels"),
}
# Flags of a plan that would need further trainings.
REFUSED = ("split.folds", "split.folds_by", "search.minutes", "search.trials", "search.configurations")


@dataclass(frozen=True, eq=False)
class RoundState:
    """What the server knows between two rounds.

    number:   rounds that are done
    began:    the step after which the next begins
    averages: averaged weights that are the model, once there are any
    score:    of the sites' validation cases by them
    """

    number: int
    began: int
    pace: TrainingPace
    common: CommonState
    averages: Arrays = field(default_factory=dict)
    score: float | None = None

    def write(self, folder: Path) -> None:
        """Write it, whole, in place of that of the round before."""
        parts = {"weights": self.common.weights, "moments": self.common.moments, "averages": self.averages}
        arrays = {f"{part}/{name}": one for part, own in parts.items() for name, one in own.items()}
        numbers = {"number": self.number, "began": self.began, "pace": asdict(self.pace), "score": self.score}
        with atomic.write_whole(folder / COMMON, overwrite=True) as partial:
            partial.write_bytes(SiteMessage("between rounds", numbers, arrays).encoded)

    @classmethod
    def read(cls, folder: Path) -> RoundState | None:
        """The state that was written last; None before the first."""
        if not (file := folder / COMMON).is_file():
            return None
        kept = exchanges.decode_message(file.read_bytes(), str(file))
        weights, moments, averages = (_named(kept.arrays, f"{part}/") for part in ("weights", "moments", "averages"))
        facts = kept.facts
        common = CommonState(weights, moments)
        return cls(facts["number"], facts["began"], TrainingPace(**facts["pace"]), common, averages, facts["score"])


@dataclass(eq=False)
class FederatedJob:
    """One job. record: what is agreed and kept in `federation.json`.

    began: time.monotonic() of the command
    find_shared: sentences on what the sites share, once they have introduced themselves; None where nobody may look
    outside: share of the minutes that is left for scoring
    """

    out: Path
    carrier: Carrier
    record: JobRecord
    began: float
    find_shared: Callable[[], Iterable[str]] | None = None
    records: ExchangeRecords = field(default_factory=ExchangeRecords)
    outside: float = OUTSIDE

    @property
    def folder(self) -> Path:
        """Where what concerns the federation lies."""
        return self.out / FEDERATION

    @property
    def spent(self) -> float:
        """s since the command began."""
        return time.monotonic() - self.began

    def run(self, request: PlanRequest) -> None:
        """All rounds from the last whole one on, and the figures and report that they come to."""
        if federated_run.is_job(self.out):
            self.resume()
        else:
            self.open(request)
        try:
            state = self.train()
            self._calibrate(state)
            JobEnd(self.out, self.record, self.finish(state), self.spent / 60).write(state.averages)
        except OSError as error:  # of the system: all that is read raises errors of ours
            raise atomic.unwritable_error(error, Path(error.filename or self.out)) from error

    def open(self, request: PlanRequest) -> None:
        """Agree, plan, and write the job's folder."""
        answers = self._ask_all("introduce")
        introduced = {site: agreement.read_introduction(one.facts, site) for site, one in answers.items()}
        agreed = agreement.agree(introduced)
        if self.find_shared is not None:
            shared = list(self.find_shared())
            self.record = replace(self.record, shared=shared)
            for sentence in shared:
                log.warning("%s", sentence)
        plan = self._plan(request, agreed)
        text = plan_file.plan_text(plan)
        least = int(plan["federation.min_count"])
        answers = self._ask_all("plan", {"plan": text})
        digest = hashlib.sha256(text.encode()).hexdigest()
        for site, one in answers.items():
            if one.facts.get("plan") != digest:
                raise IntegrityError("agreed to another plan", f"site {site}", "Begin the job anew")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        parties = dict[str, TableRow]()
        for site, one in answers.items():  # counts only where they are large enough to be known
            counts = {part: int(one.facts[part]) for part in ("train", "val", "test")}
            large = {part: count if count >= least else None for part, count in counts.items()}
            parties[site] = {"version": introduced[site].version, "agreed": now, **large}
        self.record = replace(self.record, parties=parties, plan_sha256=digest)
        federated_run.write_folder(self.out, plan, self.record)
        self.records.open(self.folder)

    def _plan(self, request: PlanRequest, agreed: Introduction) -> Plan:
        """The plan for stand-ins of all sites' training cases."""
        asked = federation_settings(request.assignments, self.record.rounds)
        kinds = sorted(task_catalogue.needed_references(agreed.task))
        answers = self._ask_all("stand-ins", {"min_count": asked["federation.min_count"].value, "kinds": kinds})
        groups = {site: stand_ins.read_stand_ins(one.facts["stand_ins"], site) for site, one in answers.items()}
        plan = plan_for_sites(stand_ins.examination_of(groups, agreed), agreed, request, asked)
        aggregation.make_aggregation(plan_checks.checked_settings(plan).federation)  # refused before a step
        return plan

    def resume(self) -> None:
        """Go on from the job's folder."""
        self.record = federated_run.read_job(self.out)
        self.records.open(self.folder)
        self._ask_all("resume")

    @cached_property
    def settings(self) -> PlanSettings:
        """The settings that the job's plan decides."""
        return plan_checks.checked_settings(plan_file.read_plan(self.out / "plan.yaml"))

    def train(self) -> RoundState:
        """All rounds, from the last whole one on."""
        state = RoundState.read(self.folder) or self._first_state()
        self.records.drop_rounds(state.number)
        for number in range(state.number + 1, self.record.rounds + 1):
            state = self._round(number, state)
            state.write(self.folder)
            if number < self.record.rounds and self.record.by_clock:
                state = self._replan(state)
                state.write(self.folder)
        return state

    def _first_state(self) -> RoundState:
        """The weights before the first step, and how many steps there are."""
        decided = self._decide_steps() if self.record.by_clock else {}
        plan = plan_file.read_plan(self.out / "plan.yaml").with_decisions(decided)
        federated_run.write_plan(self.out, plan)
        steps = int(plan["training.steps"])
        if steps < self.record.rounds:
            problem = f"{errors.count_phrase(steps, 'step')} cannot be parted into {self.record.rounds} rounds"
            raise PlanError(problem, "federation.rounds", "Give fewer --rounds, or more --minutes")
        entries = {name: [one.value, one.because] for name, one in decided.items()}
        answers = self._ask_all("start", {"decisions": entries})
        state = RoundState(0, 0, TrainingPace(steps), CommonState(answers[min(answers)].arrays))
        state.write(self.folder)
        return state

    @property
    def _seconds_left(self) -> float:
        return (1 - self.outside) * 60 * self.record.minutes - self.spent

    def _decide_steps(self) -> dict[str, Decision]:
        """Steps for the minutes, by the pace of each site; those that take turns share the time."""
        takes_turns = self.carrier.takes_turns
        share = max(1.0, self._seconds_left / (len(self.carrier.sites) if takes_turns else 1))
        answers = self._ask_all("pace", {"seconds": share})
        self.outside = OUTSIDE if any(one.facts.get("scores", True) for one in answers.values()) else UNSCORED
        paces = [share / max(1, int(one.facts["steps"])) for one in answers.values()]
        step = sum(paces) if takes_turns else max(paces)
        fitting = math.floor(self._seconds_left / step)
        because = f"so many of a site fit into {self.record.minutes:g} minutes, by a few steps at each"
        steps = Decision(max(self.record.rounds, FEWEST_STEPS, fitting), because)
        ways = {str(one.facts["compute"]) for one in answers.values()}
        compute = Decision(ways.pop() if len(ways) == 1 else None, "a probe at each site looked for the fastest")
        return {"training.steps": steps, "training.compute": compute}

    def _replan(self, state: RoundState) -> RoundState:
        """Other steps, where the pace so far says that those planned would miss the end; fewer, after round 1."""
        by_round = pd.read_csv(self.folder / ROUNDS).groupby("round")["seconds"]
        ahead = state.pace.steps - state.began
        rounds = self.record.rounds - state.number
        took = float((by_round.sum() if self.carrier.takes_turns else by_round.max()).sum())
        fitting = max(rounds, math.floor(self._seconds_left * state.began / max(took, 1e-3)))
        # A job that goes on does not know how long it took before.
        if abs(fitting - ahead) <= SLACK * ahead or (fitting > ahead and state.number > 1):
            return state
        log.info("steps: %d more in place of %d, by the pace so far", fitting, ahead)
        plan = plan_file.read_plan(self.out / "plan.yaml")
        steps = Decision(state.began + fitting, "so many fit by the pace so far")
        federated_run.write_plan(self.out, plan.with_decision("training.steps", steps))
        return replace(state, pace=state.pace.replan(state.began, fitting))

    def _round(self, number: int, state: RoundState) -> RoundState:
        """One round: all sites train from common weights, and theirs become common."""
        rounds = self.record.rounds
        chosen = self.settings.federation
        began = time.monotonic()
        until = round_end(state.pace, number, rounds)
        averages = number == rounds or chosen.select == "validation"
        facts = {"round": number, "begins": state.began, "until": until, "averages": averages}
        message = SiteMessage("round", {**facts, "pace": asdict(state.pace)}, state.common.weights)
        updates = self._gather(self.carrier.ask(message, number, self.records), number, state)
        method = aggregation.make_aggregation(chosen)
        common = aggregation.aggregate(method, state.common, updates)
        after = replace(state, number=number, began=until, common=common)
        if averages:
            after = self._with_averages(after, updates, method)
        count = errors.count_phrase(len(updates), "site")
        seconds = time.monotonic() - began
        log.info("round %d of %d: %s in %.0f s", number, rounds, count, seconds)
        return after

    def _gather(self, asked: Iterable[tuple[str, Answer]], number: int, state: RoundState) -> Updates:
        """The updates of a round that can be used, on the disk, so that one is in memory; rows of `rounds.csv`."""
        folder = self.folder / INCOMING
        folder.mkdir(exist_ok=True)
        answers = dict[str, Answer]()
        norms = dict[str, float]()
        problems = dict[str, HilumError]()
        spent = dict[str, Sequence[BudgetRow]]()
        for site, one in asked:
            try:
                if one.message is None:
                    raise one.error or IntegrityError("sent nothing", f"site {site}", "Look at its log")
                spent[site] = site_budgets.read_rows(one.facts, site, self.settings, self.out)
                norms[site] = update_norm(site, one.message, state.common)
                (folder / site).write_bytes(one.message.encoded)
            except HilumError as error:
                problems[site] = error
            answers[site] = replace(one, message=SiteMessage("round", one.facts))
        site_budgets.note_rows(self.out, spent)  # also of updates that are left out: they were seen
        middle = middle_norm(norms.values())
        for site, norm in sorted(norms.items()):
            if norm > self.settings.federation.norm_bound * middle > 0:
                problem = f"its update is {norm / middle:.0f} times as long as the middle one"
                problems[site] = IntegrityError(problem, f"site {site}", "Look at it, or raise federation.norm_bound")
        for site, one in sorted(answers.items()):
            self._note(number, site, one, norms.get(site), problems.get(site))
        good = {site: one.facts for site, one in answers.items() if site not in problems}
        self._refuse_too_few(len(good), problems)
        return Updates(folder, {site: float(facts["weight"]) for site, facts in good.items()})

    def _note(self, number: int, site: str, answer: Answer, norm: float | None, error: HilumError | None) -> None:
        """A row of `rounds.csv`."""
        facts = answer.facts
        weight = answer.facts.get("weight") or 0
        shown = weight if weight >= self.settings.federation.min_count else None
        state = "added" if error is None else f"left out: {error.problem}"
        row = (number, site, facts.get("steps"), round(answer.seconds, 3), facts.get("loss"), shown, norm, state)
        self.records.note_round(row)

    def _with_averages(self, state: RoundState, updates: Updates, method: aggregation.Aggregation) -> RoundState:
        """The round's averaged weights, where they are to be the model."""
        averaged = updates.of(AVERAGED)
        first, _ = averaged[min(averaged)]
        found = aggregation.aggregate(method.of_averages, CommonState(first), averaged).weights
        if self.settings.federation.select == "last":
            return replace(state, averages=found)
        answers = dict(self.carrier.ask(SiteMessage("validate", {}, found), state.number, self.records))
        facts = [answers[site].facts for site in sorted(answers)]
        facts = [one for one in facts if one.get("score") is not None]
        if not facts:
            return replace(state, averages=found)
        score = sum(one["score"] * one["cases"] for one in facts) / sum(one["cases"] for one in facts)
        return state if state.score is not None and score < state.score else replace(state, averages=found, score=score)

    def _refuse_too_few(self, count: int, problems: Mapping[str, HilumError]) -> None:
        """The error of a site where fewer are left than must be; else a line of the log for each that is missing."""
        if count < (self.record.min_sites or len(self.carrier.sites)):
            error = problems[min(problems)]
            remedy = f"{error.remedy}. Then `hilum federate --resume {self.out}` goes on from the last whole round"
            raise error.stating(remedy=remedy)
        for site, error in sorted(problems.items()):
            log.warning("without site %s: %s", site, error.problem)

    def _calibrate(self, state: RoundState) -> None:
        """A temperature by sums over the sites' validation patients, where there are any, is a decision of the plan."""
        answers = self.settings.task.answers
        weights = iter([state.averages])
        if answers is None or not answers.takes_temperature:
            return

        def ask(log: float | None, arrays: Arrays) -> dict[str, list[float]]:
            """What the sites say at this logarithm; those without enough patients say nothing."""
            message = SiteMessage("temperature", {"log": log}, arrays)
            found = [one.facts for _, one in sorted(self.carrier.ask(message, state.number, self.records))]
            return {
                name: [float(one[name]) for one in found if one.get(name)] for name in ("patients", "first", "second")
            }

        def slopes(log: float) -> tuple[float, float]:
            """The sums over all sites."""
            found = ask(log, next(weights, {}))
            first, second = sum(found["first"]), sum(found["second"])
            if not math.isfinite(first + second):
                raise IntegrityError("sent no number", "the temperature over sites", "Look at the sites' logs")
            return first, second

        counts = ask(None, {})["patients"]
        if not (patients := int(sum(counts))):
            return
        factor = calibration_fit.common_factor(slopes)
        plan = plan_file.read_plan(self.out / "plan.yaml")
        sites = errors.count_phrase(len(counts), "site")
        because = (
            f"the temperature of {patients} unseen patients of {sites}, by sums of the derivatives of their losses"
        )
        calibrator = calibration_fit.temperature_of(factor, patients)
        federated_run.write_plan(self.out, plan.with_decision(CALIBRATION, Decision(calibrator.settings, because)))
        self.__dict__.pop("settings", None)

    def finish(self, state: RoundState) -> dict[str, SiteScores]:
        """Every site gets the model, and scores it on its own test cases."""
        shutil.rmtree(self.folder / INCOMING, ignore_errors=True)
        calibration = federated_run.found_calibration(plan_file.read_plan(self.out / "plan.yaml"))
        facts = {"calibration": calibration, "membership": self.record.membership}
        message = SiteMessage("finish", facts, state.averages)
        answers = dict(self.carrier.ask(message, state.number, self.records))
        good = {site: one.message for site, one in sorted(answers.items()) if one.message is not None}
        self._refuse_too_few(len(good), {site: one.error for site, one in answers.items() if one.error})
        return {
            site: SiteScores(case_tables.rows_from_records(one.facts["rows"]), one.arrays) for site, one in good.items()
        }

    def _ask_all(self, kind: str, facts: Facts | None = None) -> dict[str, SiteMessage]:
        """The answers of all sites; the first error of one of them ends the job."""
        answers = dict(self.carrier.ask(SiteMessage(kind, facts or {}), 0, self.records))
        for _, one in sorted(answers.items()):
            if one.error is not None:
                raise one.error
        return {site: one.message for site, one in sorted(answers.items()) if one.message is not None}


@dataclass(frozen=True, eq=False)
class Updates(Mapping[str, tuple[Arrays, float]]):
    """{site: (its weights, its training cases)} of a round, each read from the disk when it is asked for.

    begins: how the names of these weights begin in the message, without which they are given
    """

    folder: Path
    shares: Mapping[str, float]
    begins: str = ""

    def __getitem__(self, site: str) -> tuple[Arrays, float]:
        arrays = exchanges.decode_message((self.folder / site).read_bytes(), site).arrays
        return _named(arrays, self.begins), self.shares[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shares)

    def __len__(self) -> int:
        return len(self.shares)

    def of(self, begins: str) -> Updates:
        """The same, of weights whose names begin so."""
        return replace(self, begins=begins)


def _named(arrays: Arrays, begins: str) -> dict[str, np.ndarray]:
    """The arrays of one kind, by their own names."""
    if not begins:
        return {name: one for name, one in arrays.items() if not name.startswith(AVERAGED)}
    return {name.removeprefix(begins): one for name, one in arrays.items() if name.startswith(begins)}


def round_end(pace: TrainingPace, number: int, rounds: int) -> int:
    """The step after which a round ends: rounds lie evenly over the progress."""
    if number >= rounds:
        return pace.steps
    return bisect_left(range(pace.steps), number, key=lambda step: pace.looks(step, rounds))


def update_norm(site: str, update: SiteMessage, common: CommonState) -> float:
    """The length of a site's change; IntegrityError for an update that cannot be one."""
    own = _named(update.arrays, "")
    count = update.facts.get("weight")
    shapes = [{name: (one.shape, one.dtype) for name, one in each.items()} for each in (own, common.weights)]
    faults = {
        "other weights than the common ones": shapes[0] != shapes[1],
        "no number of training cases": not isinstance(count, int) or count < 1,
        "numbers that are not finite": not all(np.isfinite(one).all() for one in update.arrays.values()),
    }
    for fault in (words for words, is_so in faults.items() if is_so):
        raise IntegrityError(f"its update has {fault}", f"site {site}", "Look at the site's log and version")
    changes = (own[name].astype(np.float64) - one for name, one in common.weights.items() if one.dtype.kind == "f")
    return math.sqrt(sum(float(np.square(one).sum()) for one in changes))


def middle_norm(norms: Iterable[float]) -> float:
    """The middle of some lengths, of two the shorter; 0 of none."""
    rising = sorted(norms)
    return rising[(len(rising) - 1) // 2] if rising else 0.0


# The plan of sites that train together: the ordinary one for stand-ins, without what needs cases of several sites.


def federation_settings(assignments: Mapping[str, PlainValue], rounds: int) -> dict[str, Decision]:
    """The plan's section `federation`, with what was set by hand; PlanError for what cannot be."""
    for name in assignments:
        if name in WITHOUT or name in REFUSED:
            because = WITHOUT[name][1] if name in WITHOUT else "one network travels"
            raise PlanError(f"cannot be set where sites train together: {because}", name, "Leave it out")
    asked = {name: value for name, value in assignments.items() if name.startswith(f"{SECTION}.")}
    for name, value in asked.items():
        typed_sections.check_value(name, value)
    usual = {f"{SECTION}.{one.name}": one.default for one in fields(FederationSettings)}
    because = "the usual one, until sites have shown that another is better"
    decided = {name: Decision(value, because) for name, value in usual.items()}
    by_hand = {name: Decision(value, BY_HAND) for name, value in asked.items()}
    return decided | {f"{SECTION}.rounds": Decision(rounds, "asked for by --rounds")} | by_hand


def plan_for_sites(
    examination: Examination, agreed: Introduction, request: PlanRequest, settings: Mapping[str, Decision]
) -> Plan:
    """The plan for all sites; examination: of stand-ins. DatasetError where no site has enough cases to send any."""
    if not len(examination.dataset):
        least = settings["federation.min_count"].value
        problem = f"no site has {least} like training cases, so there is nothing to plan by"
        raise DatasetError(problem, "the sites", "Lower federation.min_count, as far as the sites agree")
    others = {name: value for name, value in request.assignments.items() if not name.startswith(f"{SECTION}.")}
    delta = others.pop(privacy_rules.DELTA, None) if others.get(privacy_rules.EPSILON) is not None else None
    wished = replace(request, task=agreed.task, assignments=others, everything=True, folds=0).effective_request
    device = hardware.announced_device(request.device or "auto")
    machine = training_memory.this_machine(device.value, request.threads, None)
    plan = plan_request.plan_examined(wished, examination, "", device, machine).plan
    if plan["preprocessing.cascade"] is not None:
        because = "the first network of a cascade would be a training over all sites of its own"
        plan = plan_changes.without_cascade(plan, because)
    without = {name: Decision(value, because) for name, (value, because) in WITHOUT.items() if name in plan}
    if privacy_rules.EPSILON in plan and plan[privacy_rules.EPSILON] is not None:
        because = f"each site's own: a tenth of one in its units, in {SECTION}.min_count of them at least"
        without[privacy_rules.DELTA] = Decision(None, because) if delta is None else Decision(delta, BY_HAND)
    method = Decision("sampled", "each site samples its own parts, by patients")
    plan = plan.with_decisions({**without, "split.method": method, **settings})
    return replace(plan, data="", data_hash="", options={})
