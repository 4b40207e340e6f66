"""The folder of a job: a run that `load` and `package` take, without a case, a picture or a path of any site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.federation import pooled_figures, shared_cases, site_budgets
from hilum.federation.exchanges import FEDERATION, TRAFFIC, Arrays
from hilum.federation.pooled_figures import SiteScores
from hilum.files.storage import atomic, csv_text
from hilum.lazy import pandas as pd
from hilum.lazy import torch
from hilum.planning import PlanSettings, plan_checks, plan_file
from hilum.report import Paragraph, ReportPage, Section, Table, page_blocks
from hilum.report.page_blocks import Estimates
from hilum.runs import run_end, run_report
from hilum.runtime import hardware, record_files, torch_networks
from hilum.runtime.model_files import REPORT
from hilum.runtime.model_schema import ModelOrigin
from hilum.runtime.package import package_contents
from hilum.scoring import case_scoring, model_verdict
from hilum.scoring.auditing.site_audit import SITES
from hilum.scoring.case_scoring import EVALUATION, SUMMARY
from hilum.scoring.model_verdict import Verdict
from hilum.training import checkpoint_files
from hilum.values import PlainValue, Plan
from hilum.values.table_cells import TableRow

JOB = "federation.json"
SCHEMA = "hilum.federation"
# What a site's folder holds, beside the job's: `JOB.sites/<site>`.
SITES_FOLDER = ".sites"
LEFT_OUT = "Left out: {}prediction sets, decision thresholds and the gate, which need cases of all sites."
CALIBRATION = "task.calibration"


@dataclass(frozen=True)
class JobRecord:
    """What is agreed about a job, and kept in `federation.json`.

    minutes:   of the command; by_clock: whether they decide how many steps there are
    min_sites: fewest sites with which a round counts; None: all
    round_timeout: s that a site has for an answer; None: as long as it takes
    restarts:  how often a job goes on after a party was lost
    membership: whether sites attack the model at the end
    parties:   {site: version, when it agreed, cases of each part, None where they are few}
    shared:    sentences on what sites share; None where that was not looked for
    """

    transport: str
    rounds: int
    minutes: float
    by_clock: bool
    min_sites: int | None = None
    round_timeout: float | None = None
    restarts: int = 0
    membership: bool = False
    parties: Mapping[str, TableRow] = field(default_factory=dict)
    plan_sha256: str = ""
    shared: Sequence[str] | None = None


def write_folder(out: Path, plan: Plan, record: JobRecord) -> None:
    """The folder of a job before its first round; an older one is replaced."""
    with atomic.write_whole(out, overwrite=True) as partial:
        (partial / FEDERATION).mkdir(parents=True)
        record_files.write_json(partial / FEDERATION / JOB, SCHEMA, asdict(record))
        atomic.write_text(partial / "plan.yaml", plan_file.plan_text(plan))


def write_plan(out: Path, plan: Plan) -> None:
    """The job's plan, with what was decided since."""
    atomic.write_text(out / "plan.yaml", plan_file.plan_text(plan), overwrite=True)


def is_job(out: Path) -> bool:
    """Whether the folder is that of a training over sites."""
    return (out / FEDERATION / JOB).is_file()


def read_job(out: Path) -> JobRecord:
    """What was agreed about a job; UsageError where the folder holds none."""
    if not is_job(out):
        raise UsageError("holds no job of sites", str(out), "Give the folder that `hilum federate` wrote")
    record = record_files.read_json(out / FEDERATION / JOB, SCHEMA)
    return JobRecord(**{name: one for name, one in record.items() if name not in ("schema", "version")})


def write_model(out: Path, settings: PlanSettings, averages: Arrays, facts: ModelOrigin) -> None:
    """The model as the last checkpoint of a run; facts: go into its record."""
    model = package_contents.model_settings(
        settings.task, settings.preprocessing, settings.inference, settings.architecture, facts
    )
    torch.manual_seed(settings.training.seed)  # what stays at the sites is as it was before the first step
    fresh = torch_networks.build_module(settings.task, settings.architecture).state_dict()
    tensors = {**fresh, **{name: torch.from_numpy(one.copy()) for name, one in averages.items()}}
    checkpoint_files.write_checkpoint(checkpoint_files.last_checkpoint(out), model, tensors)


def found_calibration(plan: Plan) -> Mapping[str, PlainValue] | None:
    """The settings of the calibration that the sites have found; None where there is none."""
    found: Mapping[str, PlainValue] | None = plan[CALIBRATION] if CALIBRATION in plan else None  # noqa: SIM401 - not a mapping
    return found


@dataclass(frozen=True, eq=False)
class JobEnd:
    """The end of a job: its figures, by site and of all, its notes and its report.

    scores: of each site
    """

    out: Path
    record: JobRecord
    scores: Mapping[str, SiteScores]
    minutes: float

    def write(self, averages: Arrays) -> None:
        """The model, `sites.csv`, summary, notes and report, which marks a finished job."""
        plan = plan_file.read_plan(self.out / "plan.yaml")
        settings = plan_checks.checked_settings(plan)
        least = settings.federation.min_count
        metrics = settings.task.metrics
        rows, figures = pooled_figures.pool_scores(self.scores, metrics, least)
        primary = str(plan["evaluation.primary"])
        sites = pooled_figures.sites_table(figures, least)
        csv_text.write_table(sites, self.out / FEDERATION / SITES)
        exchanged = {**asdict(self.record), "exchanged": self.exchanged.to_dict("records")}
        facts: ModelOrigin = {
            "primary": primary,
            "environment": hardware.machine_environment(),
            "federation": exchanged,
        }
        write_model(self.out, settings, averages, {"patients_known": False, "fingerprint": {}, **facts})
        if rows:
            with atomic.write_whole(self.out / EVALUATION, overwrite=True) as partial:
                partial.mkdir()
                record_files.write_json(partial / SUMMARY, case_tables.SUMMARY_SCHEMA, case_tables.rows_to_json(rows))
            case_scoring.write_verdict(self.out / EVALUATION, Verdict().as_record(), primary)
        words = [one.words(metrics) for one in figures if one.metric == primary][:1]
        notes = [
            self.sentence,
            *site_budgets.budget_sentences(self.out),
            *words,
            *[sentence for one in figures for sentence in pooled_figures.membership_sentences(one, metrics)],
            LEFT_OUT.format("" if found_calibration(plan) else "calibration, "),
        ]
        notes += [shared_cases.UNSEARCHED] if self.record.shared is None else self.record.shared
        if patterns := settings.federation.private_layers:
            stayed = f"{errors.list_phrase(patterns)} stayed at each site, so that here they are untrained"
            notes.append(f"{stayed}: predict with a site's own folder.")
        run_end.write_notes(self.out, notes, None, Verdict(), minutes=self.minutes)
        headline = model_verdict.headline_rows(rows, primary, settings.task) if rows else []
        page = ReportPage(
            f"Training over {errors.count_phrase(len(self.record.parties), 'site')}",
            headline,
            [
                *([Section("Results", [Estimates(rows)])] if rows else []),
                Section("Sites", [Paragraph(sentence) for sentence in words] + [_table(sites)]),
                Section("What was exchanged", [Paragraph(self.sentence), _table(self.exchanged)]),
                run_report.decided_section(plan),
                run_report.plan_section(plan),
            ],
            {"rounds": self.record.rounds, "transport": self.record.transport, "plan": self.record.plan_sha256},
            notes,
            "No image left its site: sites sent weights of the network and figures.",
            metrics,
        )
        atomic.write_text(self.out / REPORT, page_blocks.render_page(page), overwrite=True)

    @cached_property
    def exchanged(self) -> pd.DataFrame:
        """What travelled: kind, direction, messages, bytes."""
        traffic = pd.read_csv(self.out / FEDERATION / TRAFFIC)
        kinds = traffic.groupby(["kind", "direction"], sort=False)["bytes"]
        return kinds.agg(messages="count", bytes="sum").reset_index()

    @property
    def sentence(self) -> str:
        """What was exchanged, in words."""
        sent = self.exchanged["bytes"].sum()
        how = "simulated on one machine" if self.record.transport == "local" else "over mutual TLS"
        return (
            f"{errors.count_phrase(len(self.record.parties), 'site')} trained this model in "
            f"{errors.count_phrase(self.record.rounds, 'round')}, {how}: {sent / 1e6:.1f} MB of weights, facts of "
            "groups of cases and figures were exchanged, and no image."
        )


def _table(table: pd.DataFrame) -> Table:
    cells = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return Table([*table.columns], cells)
