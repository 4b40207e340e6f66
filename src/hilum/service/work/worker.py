"""A worker: claims jobs one after the other, holds each by a heartbeat, writes what it came to."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from hilum import errors
from hilum.errors import DatasetError, FormatError, HilumError, IntegrityError, ResourceError, UsageError
from hilum.files.dicom.writing import seg
from hilum.lazy import ndimage, pandas
from hilum.prediction import result_files
from hilum.runtime import Model, ModelRequest
from hilum.service.acceptances import Acceptances
from hilum.service.configuration import NodeSettings, RoutingRule
from hilum.service.dicom.sending import PeerError
from hilum.service.exchange import fhir_covariates
from hilum.service.exchange.fhir_covariates import CovariateValue
from hilum.service.monitoring import change_comparison, safety
from hilum.service.monitoring.safety import ABSTAIN, HALT, STOP
from hilum.service.records import deployments
from hilum.service.records.job_queue import InsideBox, Job, JobOutcome, Jobs
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import JOBS, STUDIES
from hilum.service.routing import prior_studies, routing_rules
from hilum.service.work import job_answers
from hilum.service.work.job_answers import MASK, JobInputs, ObjectMarks, WithinAnswer
from hilum.service.work.prior_answers import EarlierAnswer, PriorSource
from hilum.service.work.warm_models import WarmModels
from hilum.values import ANSWERED, PlainValue
from hilum.values.case_outcome import ABSTAINED, REFUSED
from hilum.work_state import log

RESULTS = "results"
# Between two looks at an empty queue (s); before a job that failed for want of something is tried again; and how long a
# job may still run once the node is to stop.
IDLE_S, AGAIN_S, DRAIN_S = 0.2, 10.0, 22.0
# Before a FHIR server that did not answer is asked again for covariates (s).
SOURCE_S = 30.0
# Before it is looked again whether a person has undone what stops a model (s).
STOPPED_S = 30.0
# The exit of a worker whose job took too long: only the end of the process ends a computation.
TOO_LONG = 70


class JobWorker:
    """One process that works on jobs until it is stopped.

    name:   which no other living worker has
    models: of the whole node; what is not in its own settings is left to the workers of other machines
    """

    def __init__(
        self,
        settings: NodeSettings,
        database: Database,
        rules: Sequence[RoutingRule],
        name: str,
        models: Iterable[str] = (),
    ) -> None:
        self.settings, self.name = settings, name
        self.jobs = Jobs(database, settings.queue.lease_s, settings.queue.attempts)
        self.index = StudyIndex(database)
        self.rules = {rule.name: rule for rule in rules}
        self.priors = PriorSource(settings, name)
        memory = settings.queue.memory_gb / max(1, settings.queue.workers)
        self.without = sorted(set(models) - set(settings.models))
        packages = deployments.package_finder(database, settings.folder)
        self.models = WarmModels(settings.models, memory, packages=packages)
        self.acceptances = Acceptances(settings, packages)

    def warm(self) -> None:
        """Load the models, as many as the memory is meant to hold, so that the first job does not wait for one."""
        _ = (seg.write_segmentation, pandas.DataFrame, ndimage.label)  # imported now: they take two seconds
        for name in self.models.sections:
            with suppress(HilumError):  # a job says so
                self.models[name]

    def work(self, stop: threading.Event) -> None:
        """Until it is stopped. What a dead worker of this name held waits again."""
        self.jobs.release(self.name)
        while not stop.is_set():
            try:
                job = self.jobs.claim(self.name, self.without)
                if job is None:
                    if not self._shadow_next(stop):
                        stop.wait(IDLE_S)
                    continue
                with self._renewing_claim(job, stop):
                    self.finish_job(job)
            except ResourceError as error:
                log.warning("%s: %s", self.name, error.problem)
                stop.wait(AGAIN_S)

    def finish_job(self, job: Job) -> None:
        """One job, from its inputs to its record."""
        results = self.settings.folder / RESULTS
        for left in results.glob(f".{job.job}.*"):  # by a worker that died, or that has lost its claim
            shutil.rmtree(left, ignore_errors=True)
        room = results / f".{job.job}.{job.fence}"
        room.mkdir(parents=True)
        try:
            outcome = self._outcome(job, room)
            if outcome is not None:
                publish = partial(_publish, room, job, outcome)
                self.jobs.finish(job, outcome, publish, lambda connection: self._later_studies(connection, job))
                log.info("job %s: %s", job.job, outcome.outcome)
        except HilumError as error:
            self.jobs.give_back(job, f"{error.problem}. {error.remedy}", after_s=AGAIN_S)
        except Exception as error:  # whatever a job meets is that job's: it is tried again, then goes aside
            log.error("job %s: %s", job.job, errors.describe_fault(error))
            self.jobs.give_back(job, f"{errors.describe_fault(error)} within the node", after_s=AGAIN_S)
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def _shadow_next(self, stop: threading.Event) -> bool:
        """Have a package in shadow answer a job that is done, while nothing else waits; False where there is none."""
        limit = self.settings.queue.job_timeout_s
        shadowed = change_comparison.claim_shadow_job(self.jobs.database, self.without, limit)
        if shadowed is None:
            return False
        job, results = shadowed.job, self.settings.folder / RESULTS
        room = results / f".shadow.{shadowed.n}.{job.job}"
        shutil.rmtree(room, ignore_errors=True)  # of a worker that died
        room.mkdir(parents=True)
        try:
            with self._renewing_claim(job, stop):
                inputs, model = self._inputs(job), self.models.model_for_job(job.model, job.model_hash)
                if inputs is None:
                    change_comparison.note_differences(self.jobs.database, shadowed, None, "its images have changed")
                    return True
                model_settings, covariates = self.settings.models[job.model], self._covariates(job, model)
                request = ModelRequest(at_most=limit, allow_large=model_settings.allow_large)
                outcome = job_answers.answer_job(
                    job, model, inputs, room, self._marks(job), (), covariates_given=covariates, request=request
                )
                masks = (results / job.job / MASK, room / MASK)
                found = change_comparison.measure_differences(self.jobs.database, shadowed, outcome, masks)
                change_comparison.note_differences(self.jobs.database, shadowed, found)
        except ResourceError:  # the database is away, or memory is short: it is tried again
            raise
        except Exception as error:  # no answer is a fact about the package, and the node goes on
            log.warning("change %d: no answer to job %s: %s", shadowed.n, job.job, errors.describe_fault(error))
            words = error.problem if isinstance(error, HilumError) else type(error).__name__
            change_comparison.note_differences(self.jobs.database, shadowed, None, words)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        return True

    def _outcome(self, job: Job, room: Path) -> JobOutcome | None:
        """The outcome of a job; None where it waits: its inputs have changed, or its covariates cannot be asked for."""
        inputs = self._inputs(job)
        if inputs is None:
            self._wait(job)
            return None
        rule = self.rules.get(job.rule)
        after_s, without_prior = self._wait_for_prior(job, rule)
        if after_s:
            self.jobs.give_back(job, "waits for the earlier study of a peer", counts=False, after_s=after_s)
            return None
        send, model_settings = rule.send if rule else [], self.settings.models.get(job.model)
        hold = self._hold(job)
        if hold is not None and hold.action in (HALT, STOP):
            self.jobs.give_back(job, f"stopped by {hold.because}", counts=False, after_s=STOPPED_S)
            return None
        if hold is not None and hold.action == ABSTAIN:
            reason = f"the model answers nothing until a person undoes it: {hold.because}"
            return self._announce(job, JobOutcome(ABSTAINED, reason, send=send, measured=None), inputs, room)
        began = time.monotonic()
        try:
            model = self.models.model_for_job(job.model, job.model_hash)
        except (IntegrityError, FormatError, UsageError) as error:
            outcome = JobOutcome(REFUSED, f"the model {error.problem}. {error.remedy}", send=send)
            return self._announce(job, outcome, inputs, room)
        loading = time.monotonic() - began
        try:
            covariates = self._covariates(job, model)
        except (DatasetError, FormatError) as error:
            outcome = JobOutcome(REFUSED, f"{error.problem}. {error.remedy}", send=send)
            return self._announce(job, outcome, inputs, room, model)
        except PeerError as error:  # a value that nobody could ask for is not a missing one
            self.jobs.give_back(job, f"covariates: the FHIR server {error.problem}", counts=False, after_s=SOURCE_S)
            return None
        if reason := self.acceptances.reason_against(job, self._header(job), covariates):
            return self._announce(job, JobOutcome(ABSTAINED, reason, send=send, measured=None), inputs, room, model)
        outcome = job_answers.answer_job(
            job,
            model,
            inputs,
            room,
            self._marks(job),
            send,
            covariates_given=covariates,
            request=ModelRequest(
                at_most=self.settings.queue.job_timeout_s,
                allow_large=model_settings is not None and model_settings.allow_large,
            ),
            kinds=model_settings.answers if model_settings is not None else (),
            explains=self.models.maps_of(job.model, job.model_hash),
            align=None if model_settings is None else model_settings.align,
            advice=() if model_settings is None else model_settings.advice,
        )
        if self._inputs(job) is None:  # what was predicted is no longer the whole series: nobody is to get it
            self._wait(job)
            return None
        if hold is not None:
            outcome = replace(outcome, reason="; ".join(filter(None, [outcome.reason, hold.because])))
        uid, lacking = self.index.uid_of(job.study), list[str]()
        with job_answers.try_apart("the priority or notice", lacking):
            outcome = safety.with_urgency(outcome, job, uid, self.settings, room)
        outcome = replace(outcome, reason="; ".join(filter(None, [outcome.reason, without_prior, *lacking])))
        timed = replace(outcome, seconds={"load": loading, **outcome.seconds}, send=send)
        return self._announce(job, timed, inputs, room, model)

    def _wait_for_prior(self, job: Job, rule: RoutingRule | None) -> tuple[float, str]:
        """(seconds that a job waits for the earlier study of a peer, else 0; why it has none)."""
        if rule is None or rule.prior is None or "prior" in job.inputs:
            return 0.0, ""
        with self.index.database.read() as connection:
            study = connection.execute(select(STUDIES).where(STUDIES.c.study == job.study)).one()
        return self.priors.wait_for(job.job, job.stamp, study, rule.prior)

    def _later_studies(self, connection: Connection, job: Job) -> ColumnElement[bool] | None:
        """Studies whose answers by the same rule may be compared with that of a job."""
        prior = self.rules[job.rule].prior if job.rule in self.rules else None
        return None if prior is None else prior_studies.later_studies(connection, job.study, prior)

    def _hold(self, job: Job) -> Row[Any] | None:
        """Hold that an alert has put on the model of a job."""
        with self.index.database.read() as connection:
            return safety.hold_of(connection, job.model)

    def _announce(
        self, job: Job, outcome: JobOutcome, inputs: JobInputs, room: Path, model: Model | None = None
    ) -> JobOutcome:
        """An outcome as its rule tells peers of it: not at all, or without an answer by reports that say why.

        model: None where it could not be loaded
        """
        rule = self.rules.get(job.rule)
        if rule is None or outcome.names.isdisjoint(rule.tell):
            return replace(outcome, send=(), report_to=())
        outcome = replace(outcome, report_to=self.settings.report_to)
        if outcome.outcome == ANSWERED:
            return outcome
        return job_answers.state_no_result(
            job,
            outcome,
            inputs,
            room,
            {"name": job.model, "version": job.model_version} if model is None else result_files.model_identity(model),
            result_files.algorithm_name(job.model, job.model_version),
            self._marks(job),
        )

    def _marks(self, job: Job) -> ObjectMarks:
        """Marks that the DICOM objects of a job bear."""
        node, model_settings = self.settings.node, self.settings.models.get(job.model)
        paths = {name: self.settings.folder / RESULTS / key / name for name, key in self.jobs.replaced_by(job).items()}
        earlier = {name: path for name, path in paths.items() if path.exists()}
        is_comprehensive = model_settings is not None and model_settings.sr_class == "comprehensive"
        return ObjectMarks(node.uid_root, node.text, is_comprehensive, earlier, self.settings.urgent)

    def _covariates(self, job: Job, model: Model) -> Mapping[str, CovariateValue]:
        """The covariates of a job's patient that the settings have from headers or a FHIR server."""
        model_settings, fhir = self.settings.models.get(job.model), self.settings.fhir
        if model_settings is None or not model_settings.covariates:
            return {}
        patient = self._header(job)
        return fhir_covariates.fetch_covariates(
            model_settings.covariates, model.networks.context, patient, fhir, idle_s=self.settings.dicom.idle_s
        )

    def _header(self, job: Job) -> Mapping[str, PlainValue]:
        """Attributes of the first series of a job that states any."""
        keys = job.inputs["series"].values()
        headers = (row.attributes for row in self.index.series_of(job.study) if row.series in keys)
        return next(filter(None, headers), {})

    def _wait(self, job: Job) -> None:
        """Give a job back whose inputs have changed; the rules will supersede it."""
        self.jobs.give_back(job, "the study grows", counts=False, after_s=AGAIN_S)

    def _inputs(self, job: Job) -> JobInputs | None:
        """The files of a job's series as they were when it was made; None where there are others by now."""
        paths, contents = {}, {}
        for role, key in job.inputs["series"].items():
            rows = self.index.objects_of(job.study, key)
            paths[role] = [self.settings.folder / row.path for row in rows]
            contents[key] = routing_rules.series_hash([row.sha256 for row in rows])
        if routing_rules.inputs_hash(job.inputs, contents) != job.inputs["hash"]:
            return None
        inside, prior, rule = job.inputs.get("inside"), job.inputs.get("prior"), self.rules.get(job.rule)
        lesions = rule.prior.lesions if rule is not None and rule.prior is not None else ()
        return JobInputs(
            paths,
            None if inside is None else self._within(job, inside),
            None if prior is None else EarlierAnswer.of_job(self.index, self.settings, prior["job"], lesions),
        )

    def _within(self, job: Job, inside: InsideBox) -> WithinAnswer:
        """The answer that a job looks within, and where that lies."""
        with self.index.database.read() as connection:
            earlier = connection.execute(select(JOBS.c.inputs).where(JOBS.c.job == inside["job"])).scalar_one()
        path = self.settings.folder / RESULTS / inside["job"] / "answer.nii.gz"
        within = WithinAnswer(path, inside["value"], inside["margin_mm"])
        keys = set(earlier["series"].values())
        if not keys.isdisjoint(job.inputs["series"].values()):
            return within
        facts = [row.attributes or {} for row in self.index.series_of(job.study) if row.series in keys]
        return replace(within, frames={one.get("FrameOfReferenceUID") for one in facts})

    @contextmanager
    def _renewing_claim(self, job: Job, stop: threading.Event) -> Iterator[None]:
        """Renew the claim while a job is worked on; end the process where it takes too long, or the node stops."""
        over = threading.Event()
        limit, began = self.settings.queue.job_timeout_s, time.monotonic()

        def beat() -> None:
            stopped_at: float | None = None
            renewed = began
            while not over.wait(0.25):
                now = time.monotonic()
                if now - began > limit:
                    with suppress(ResourceError):  # its lease runs out without that
                        self.jobs.give_back(job, f"took longer than {limit:g} s", after_s=AGAIN_S)
                    os._exit(TOO_LONG)
                if stop.is_set():
                    stopped_at = stopped_at or now
                    if now - stopped_at > DRAIN_S:
                        with suppress(ResourceError):
                            self.jobs.give_back(job, counts=False)
                        os._exit(0)
                if now - renewed > self.settings.queue.lease_s / 3:
                    renewed = now
                    try:
                        self.jobs.renew(job)
                    except ResourceError as error:  # the next beat may reach it again
                        log.warning("%s: %s", self.name, error.problem)

        heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()


def _publish(room: Path, job: Job, outcome: JobOutcome) -> None:
    """Give a result its final name, in place of that of an earlier try, whose files are the same."""
    target = room.parent / job.job
    if not outcome.answers:
        return
    if target.exists():
        old = room.parent / f".{job.job}.{job.fence}.old"
        target.rename(old)
        room.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        room.rename(target)
