"""A site: it reads its images, keeps them, and answers what the server asks. What a method returns leaves it."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, HilumError, IntegrityError, PlanError, UsageError
from hilum.evaluation import calibration_fit, case_tables
from hilum.evaluation.calibration_fit import UnseenOutputs
from hilum.evaluation.intervals import Resampling
from hilum.federation import agreement, pooled_figures, site_budgets, stand_ins
from hilum.federation.exchanges import Arrays, SiteMessage
from hilum.files.storage import atomic, hashing
from hilum.lazy import torch
from hilum.planning import PlannedTraining, plan_file, plan_result
from hilum.planning.rules import privacy_rules
from hilum.planning.rules.split_rules import Parts
from hilum.quality.dataset_examination import Examination
from hilum.reading.dataset_reading import Data
from hilum.runs import plan_request, privacy_record, run_folder, training_jobs
from hilum.runs.plan_request import PlanRequest
from hilum.runs.run_folder import RunFolder
from hilum.runs.training_jobs import TrainingJob
from hilum.runtime import model_files, record_files
from hilum.runtime.model_schema import MODEL_SCHEMA
from hilum.runtime.package.package_contents import WEIGHTS
from hilum.scoring import case_scoring
from hilum.scoring.auditing import membership_audit
from hilum.scoring.case_scoring import EVALUATION
from hilum.tasks import task_catalogue
from hilum.training import checkpoint_files, recipe
from hilum.training.checkpoint_files import MODULE, RECORD
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.privacy_accounting import PrivacyBudget
from hilum.training.session_length import Length
from hilum.training.training_state import CommandClock, Moment
from hilum.values import Decision, Fingerprint, PlainValue, Row

if TYPE_CHECKING:
    from torch import Tensor

PRIVATE = "federation.private_layers"
# Begins the names of weights averaged over steps, in messages that hold both kinds.
AVERAGED = "averaged/"


@dataclass(eq=False)
class Site:
    """One site. folder: its private one, a run of its own, which nobody else reads.

    began: time.monotonic() of the command
    """

    name: str
    data: Data | None
    folder: Path
    request: PlanRequest
    began: float
    run: RunFolder | None = None
    _examination: Examination = field(init=False)
    _parts: Parts = field(default_factory=dict)
    _split: Mapping[str, Decision] = field(default_factory=dict)

    @property
    def examination(self) -> Examination:
        """Examination of its cases, once it has introduced itself; it stays at the site."""
        return self._examination

    def answer(self, message: SiteMessage) -> SiteMessage:
        """The answer to a message of a known kind; HilumError names this site."""
        stages: Mapping[str, Callable[[SiteMessage], SiteMessage]] = {
            "introduce": self.introduce,
            "stand-ins": self.send_stand_ins,
            "plan": self.take_plan,
            "resume": self.resume,
            "pace": self.measure_pace,
            "start": self.start,
            "round": self.train,
            "validate": self.validate,
            "temperature": self.slopes,
            "finish": self.finish,
        }
        if message.kind not in stages:
            raise IntegrityError(f"was asked for {message.kind!r}, which it does not know", self.name, "Update it")
        try:
            return stages[message.kind](message)
        except HilumError as error:
            raise error.stating(where=f"site {self.name}: {error.where}") from error
        except OSError as error:
            raise atomic.unwritable_error(error, Path(error.filename or self.folder)) from error

    def introduce(self, message: SiteMessage) -> SiteMessage:
        """What its data are, without a count."""
        assert self.data is not None  # noqa: S101 - only a job that goes on has none
        self._examination, *_ = plan_request.examine_data(self.data, replace(self.request, elsewhere=True))
        kind = task_catalogue.kind_for_dataset(self._examination.dataset, self.request.task)
        return SiteMessage("introduce", agreement.introduce(self._examination, kind.name).record)

    def send_stand_ins(self, message: SiteMessage) -> SiteMessage:
        """Stand-ins of its training cases, each of so many cases as the server asks for."""
        least = int(message.facts["min_count"])
        kinds = message.facts["kinds"]
        self._split_cases()
        known = {case.id: case.known for case in self._examination.dataset}
        found = stand_ins.stand_ins_of(self._training_facts.cases, known, kinds, least)
        return SiteMessage("stand-ins", {"stand_ins": [one.record for one in found]})

    @property
    def _training_facts(self) -> Fingerprint:
        return self._examination.fingerprint.only(plan_result.training_ids(self._parts))

    def _split_cases(self) -> None:
        """Its own parts, sampled by patients; where these are too few to part, all of them train."""
        request = replace(self.request, assignments={**self.request.assignments, "split.calibration": 0}, folds=0)
        try:
            [self._parts], self._split = plan_request.split_cases(self._examination, request)
        except DatasetError:
            [self._parts], self._split = plan_request.split_cases(self._examination, replace(request, everything=True))

    def take_plan(self, message: SiteMessage) -> SiteMessage:
        """Take the common plan, or refuse it; its own folder is written."""
        text = str(message.facts["plan"])
        dataset = self._examination.dataset
        with tempfile.TemporaryDirectory() as folder:
            (path := Path(folder, "plan.yaml")).write_text(text, encoding="utf-8")
            plan = plan_file.read_plan(path)
        root = "" if dataset.root is None else str(dataset.root)
        options = self.request.reading.chosen_options
        own = replace(plan, data=root, data_hash=hashing.dataset_hash(dataset), options=options)
        own = own.with_decision("split.method", self._split["method"])
        least = int(own["federation.min_count"])
        own = privacy_rules.with_units(own, dataset, self._training_facts, least=least)
        made = PlannedTraining(own, self._examination, self._parts)
        self.run = run_folder.new_run(self.folder, made, CommandClock(self.began))
        return SiteMessage("plan", {"plan": hashlib.sha256(text.encode()).hexdigest(), **self._counts})

    def resume(self, message: SiteMessage) -> SiteMessage:
        """Go on from what its folder holds; IntegrityError where its data have changed."""
        if not (self.folder / "plan.yaml").is_file():
            raise UsageError("holds nothing of this job", str(self.folder), "Begin the job anew with another --out")
        self.run = run_folder.resume_run(self.folder, self.began, elsewhere=True)
        return SiteMessage("resume", self._counts)

    @property
    def _counts(self) -> dict[str, int]:
        return {part: len(self._run.cases(part)) for part in ("train", "val", "test")}

    @property
    def _run(self) -> RunFolder:
        if self.run is None:
            raise IntegrityError("was asked to train before it has a plan", self.name, "Begin the job anew")
        return self.run

    @cached_property
    def _job(self) -> TrainingJob:
        return training_jobs.job_of_undivided_run(self._run)

    @cached_property
    def _prepared(self) -> tuple[list[PreparedCase], list[PreparedCase]]:
        """Training and validation cases, prepared once for all rounds."""
        return self._job.prepare()

    def measure_pace(self, message: SiteMessage) -> SiteMessage:
        """How many steps it would take in so many seconds, by a few of them, and how; whether it has cases to score."""
        clock = CommandClock(self.began)
        prepared = self._prepared  # which takes no time of the steps
        length = Length(replace(clock, deadline=clock.seconds + float(message.facts["seconds"])))
        state = recipe.plan_length(self._job.settings, *prepared, self.folder, length)
        scores = bool(self._run.cases("test") or self._run.cases("val"))
        return SiteMessage("pace", {"steps": state.pace.steps, "compute": state.compute, "scores": scores})

    def start(self, message: SiteMessage) -> SiteMessage:
        """Take what was decided since, and send the weights of before the first step."""
        decided = {name: Decision(*one) for name, one in message.facts["decisions"].items()}
        run = self._run
        self.run = replace(run, made=replace(run.made, plan=run.plan.with_decisions(decided)))
        self.run.write_plan(self.run.plan)
        self.__dict__.pop("_job", None)
        self._train_until(0)
        patients = [case.patient for case in self._prepared[0]]
        if (budget := PrivacyBudget.for_training(self._job.settings, patients)) is not None:
            budget.solve_noise(int(self._run.plan["training.steps"]))  # refused before any site has spent anything
        names = record_files.read_tensors(checkpoint_files.last_checkpoint(self.folder) / MODULE)
        for pattern in (patterns := self._job.settings.federation.private_layers):
            if not any(fnmatchcase(name, pattern) for name in names):
                problem = f"no weight has a name like {pattern!r}"
                raise PlanError(problem, PRIVATE, f"They are called as in {errors.list_phrase(names)}")
        if all(is_private(name, patterns) for name in names):
            raise PlanError("no weight is left to be common", PRIVATE, "Name fewer layers")
        return SiteMessage("start", arrays=self._weights(MODULE))

    def train(self, message: SiteMessage) -> SiteMessage:
        """Take the common weights, train up to a step, and send its own; what a kill left half done is gone on with."""
        facts = message.facts
        last = checkpoint_files.last_checkpoint(self.folder)
        begins = int(facts["begins"])
        until = int(facts["until"])
        chosen = self._job.settings
        if not run_folder.checkpoint_state(self.folder):
            if chosen.privacy.epsilon is not None:
                problem = "has lost what it has spent of its privacy budget"
                remedy = "Go on without it: --min-sites"
                raise IntegrityError(problem, str(self.folder), remedy)
            self._train_until(0)
        if (step := run_folder.checkpoint_state(self.folder)["step"]) > until:
            problem = f"has taken {step} steps, more than the {until} of this round"
            raise IntegrityError(problem, str(self.folder), "Give the site's own folder of this job")
        if step <= begins:
            given = {name: torch.from_numpy(np.array(one)) for name, one in message.arrays.items()}
            is_pulled = any(one.follows_rounds for one in chosen.terms.values())
            numbers = {"step": begins, "pace": facts["pace"]}
            checkpoint_files.rewrite_training(
                last,
                given,
                numbers,
                {**record_files.read_tensors(last / MODULE), **given} if is_pulled else None,
                keeps_optimiser=chosen.federation.optimiser == "keep",
            )
        moments = self._train_until(until)
        found = self._weights(MODULE)
        if facts["averages"]:
            found |= {f"{AVERAGED}{name}": one for name, one in self._weights(WEIGHTS).items()}
        losses = [one.loss for one in moments]
        answer = {"weight": len(self._job.train), "steps": until - begins}
        if rows := privacy_record.rows_of_training(self.folder):  # no noise was added to the loss
            return SiteMessage("round", answer | {"privacy": site_budgets.shown_rows(rows, chosen)}, found)
        return SiteMessage("round", answer | {"loss": float(np.mean(losses)) if losses else None}, found)

    def _train_until(self, step: int) -> list[Moment]:
        """Train up to this step, where the whole state is kept."""
        moments = list[Moment]()
        recipe.train_network(
            self._job.settings,
            *self._prepared,
            self.folder,
            length=Length(CommandClock(self.began), pause=step),
            record=self._job.whole_record,
            watch=moments.append,
        )
        return moments

    def _weights(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file of the last checkpoint, without what never leaves."""
        tensors = record_files.read_tensors(checkpoint_files.last_checkpoint(self.folder) / name)
        patterns = self._job.settings.federation.private_layers
        return {name: one.numpy() for name, one in tensors.items() if not is_private(name, patterns)}

    def validate(self, message: SiteMessage) -> SiteMessage:
        """The selecting metric of its validation cases by common averaged weights."""
        train, val = self._prepared
        score = None
        if val:
            score = recipe.score_averages(self._job.settings, train, val, self.folder, self._completed(message.arrays))
        return SiteMessage("validate", {"score": score, "cases": len(val)})

    def slopes(self, message: SiteMessage) -> SiteMessage:
        """Sums of the derivatives of its validation patients' losses by the logarithm of a temperature's factor.

        Of fewer patients than `federation.min_count` it sends none. The first message asks how many there are, and the
        second has the weights.
        """
        patients = len({case.patient for case in self._run.cases("val")})
        if patients < self._job.settings.federation.min_count:
            return SiteMessage("temperature", {"patients": 0})
        if message.arrays:
            self.__dict__.pop("_outputs", None)
            self._keep_model(message.arrays)
        found = {"patients": patients}
        if (log := message.facts["log"]) is None:
            return SiteMessage("temperature", found)
        if (outputs := self._outputs) is None:
            return SiteMessage("temperature", {"patients": 0})
        first, second = calibration_fit.factor_slopes(outputs, float(log))
        return SiteMessage("temperature", {**found, "first": first, "second": second})

    @cached_property
    def _outputs(self) -> UnseenOutputs | None:
        """What the common model says of the validation cases; None of answers that take no temperature."""
        task = self._job.settings.task
        cases = self._run.cases("val")
        model = model_files.load(self.folder, str(self._run.plan["training.device"]))
        rows = task.rows([model.predict(case) for case in cases], cases)
        return None if task.answers is None else task.answers.outputs(rows)

    def _keep_model(self, averages: Arrays, calibration: Mapping[str, PlainValue] | None = None) -> None:
        """The common model is the site's, with the calibration that was found over sites."""
        last = checkpoint_files.last_checkpoint(self.folder)
        best = checkpoint_files.best_checkpoint(self.folder)
        model = record_files.read_json(last / RECORD, MODEL_SCHEMA)
        found = {} if calibration is None else {"calibration": calibration}
        model["task"] = {**model["task"], **found}
        checkpoint_files.write_checkpoint(best, model, self._completed(averages))

    def finish(self, message: SiteMessage) -> SiteMessage:
        """Keep the model, with what is the site's own, and send its figures on the site's test cases."""
        self._keep_model(message.arrays, message.facts.get("calibration"))
        run = self._run
        privacy_record.write_privacy_of_run(run)
        loaded = model_files.load(self.folder, str(run.plan["training.device"]))
        seed = int(run.plan["training.seed"])
        known = run.dataset.patients_known
        cases = run.cases("test")
        attacked = list[Row]()
        if message.facts.get("membership"):
            least = self._job.settings.federation.min_count
            attacked = membership_audit.membership_or_reason(
                loaded, run.cases("train"), cases, least=least, seed=seed, patients_known=known
            )
        if not cases:
            return SiteMessage("finish", {"rows": case_tables.rows_to_json(attacked)["rows"]})
        scored = case_scoring.score_cases(loaded, cases, {}, draws_figures=False, seed=seed, patients_known=known)
        scored = replace(scored, rows=[*scored.rows, *attacked])
        with atomic.write_whole(self.folder / EVALUATION, overwrite=True) as partial:
            partial.mkdir()
            scored.write(partial)
        lines = case_tables.rows_to_json(scored.rows)["rows"]
        # The seed is known to nobody: draws that somebody can repeat can be solved for single cases.
        resampling = Resampling(seed, keeps_recipe=True)
        recipes = {(row.metric, row.label): row for row in loaded.task.summary(scored.table, seed=resampling)}
        own_rows = [recipes.get((row.metric, row.label), row) for row in scored.rows]
        draws = pooled_figures.draws_of_site(own_rows, np.random.default_rng(secrets.randbits(128)))
        return SiteMessage("finish", {"rows": lines}, {str(number): one for number, one in draws.items()})

    def _completed(self, arrays: Arrays) -> dict[str, Tensor]:
        """Common averaged weights, and its own where they never left."""
        own = record_files.read_tensors(checkpoint_files.last_checkpoint(self.folder) / WEIGHTS)
        return {**own, **{name: torch.from_numpy(np.array(one)) for name, one in arrays.items()}}


def is_private(name: str, patterns: Sequence[str]) -> bool:
    """Whether a weight of this name stays at home."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
