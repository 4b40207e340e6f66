"""Options of the verbs of documents, of changes of a model and of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from hilum.documents.tracing import REQUIREMENTS
from hilum.options.shared_flags import Device, Out, Overwrite, Seed, Threads
from hilum.reading import ReadingOptions, reading_options
from hilum.values import PlainValue, Setting

ChangePlan = Annotated[str | Path, Setting("The agreed plan of changes: change-plan.toml.", "FILE")]
ChangeOut = Annotated[str | Path | None, Setting("Folder for the results.", "FOLDER", path="change-<name>")]
Study = Annotated[str | Path, Setting("The folder of a study.", "FOLDER")]
StudyOut = Annotated[str | Path, Setting("Folder for what is written.", "FOLDER")]


def _parse_settings(texts: Sequence[str]) -> dict[str, str]:
    return reading_options.parse_pairs(texts, "--set")


def _parse_explored(texts: Sequence[str]) -> dict[str, str]:
    return reading_options.parse_pairs(texts, "--explore")


@dataclass(frozen=True)
class DocumentOptions:
    """Fill guidelines, cards and files from the records of SUBJECT."""

    subject: Annotated[str | Path, Setting("A run, a package, a node's folder or a study.", "SUBJECT")]
    _: KW_ONLY
    names: Annotated[
        str | Sequence[str], Setting("Documents, as claim,model-card; all: each that suits.", "NAME,...", "--for")
    ] = "all"
    facts: Annotated[str | Path | None, Setting("facts.toml: what a person states, with name and day.", "FILE")] = None
    formats: Annotated[
        str | Sequence[str], Setting("html, docx, pdf and json, as html,docx.", "FORMAT,...", "--format")
    ] = "html"
    out: Out = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class VerifyDocumentsOptions:
    """List the rows of documents in FOLDER that no longer hold."""

    folder: Annotated[str | Path, Setting("The documents that are checked.", "FOLDER")]
    _: KW_ONLY
    against: Annotated[str | Path, Setting("Subject whose records are read anew.", "SUBJECT")]


@dataclass(frozen=True)
class TraceRequirementsOptions:
    """Trace requirements, promises and hazards to code and tests."""

    requirements: Annotated[
        str | Path, Setting("The requirements, in a project with pyproject.toml.", "FILE", "--requirements")
    ] = REQUIREMENTS
    _: KW_ONLY
    junit: Annotated[str | Path | None, Setting("Results of the tests, as pytest --junitxml writes them.", "FILE")] = (
        None
    )
    out: Annotated[str | Path | None, Setting("Folder for trace.json; nothing is written without it.", "FOLDER")] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class CheckChangeOptions(ReadingOptions):
    """Check that NEW changed as planned, and is as good on the locked set."""

    old: Annotated[str | Path, Setting("The package that is in use.", "OLD")]
    new: Annotated[str | Path, Setting("The package that shall take its place.", "NEW")]
    _: KW_ONLY
    plan: ChangePlan
    data: Annotated[str | Path, Setting("The locked set. A ledger next to it counts the looks.", "DATA")]
    approved: Annotated[str | Path | None, Setting("The approved package, where OLD is a changed one.", "PACKAGE")] = (
        None
    )
    run: Annotated[
        str | Path | None, Setting("The run of NEW, whose patients must not be in the locked set.", "RUN")
    ] = None
    out: ChangeOut = None
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True)
class AcceptOptions(ReadingOptions):
    """Test MODEL at a site by an agreed plan, once. First lock the plan with the cases (--lock)."""

    model: Annotated[str | Path, Setting("The package that shall answer here.", "MODEL")]
    data: Annotated[
        str | Path, Setting("Labelled cases of the site. A ledger next to them counts the look.", "SITE_DATA")
    ]
    _: KW_ONLY
    plan: Annotated[str | Path, Setting("What was agreed: docs/how-to/accept.md shows one.", "ACCEPTANCE.toml")]
    lock: Annotated[bool, Setting("Only lock the plan with the cases, in ACCEPTANCE.toml.lock.")] = False
    config: Annotated[
        str | Path | None,
        Setting("Also check that a node answers each scanner in time and its peers get the results.", "FILE"),
    ] = None
    out: Out = None
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True)
class ProposeChangeOptions:
    """Propose to train anew where a trigger of the plan has fired. Nothing is trained."""

    package: Annotated[str | Path, Setting("The package that is in use.", "PACKAGE")]
    _: KW_ONLY
    plan: ChangePlan
    monitored: Annotated[str | Path, Setting("Folder that `monitor` wrote.", "FOLDER")]
    out: ChangeOut = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class StudySizeOptions:
    """Size a study: how many participants it needs, or its power, or the effect that it finds."""

    design: Annotated[
        str,
        Setting(
            "proportion, proportions, paired-proportions, means, auroc, mrmc, survival, prediction-model, "
            "stepped-wedge or before-after.",
            "DESIGN",
        ),
    ]
    _: KW_ONLY
    assignments: Annotated[
        Mapping[str, PlainValue] | None,
        Setting("Set an input of the design; repeatable.", "NAME=VALUE", "--set", repeats=True, read=_parse_settings),
    ] = None
    simulate: Annotated[int, Ge(0), Setting("Check the power by so many simulated studies.", "N")] = 0
    seed: Seed = 0


@dataclass(frozen=True)
class StudyPlanOptions:
    """Write protocol, plan of analysis and fields of a registry from STUDY."""

    plan: Annotated[str | Path, Setting("The plan of a trial: study.toml.", "STUDY")]
    _: KW_ONLY
    out: StudyOut
    overwrite: Overwrite = False


@dataclass(frozen=True)
class StudyLockOptions:
    """Seal the plan in FOLDER, or an amendment of it."""

    folder: Study
    _: KW_ONLY
    reason: Annotated[str, Setting("Why a locked plan is amended.", "TEXT")] = ""


@dataclass(frozen=True)
class StudyRandomiseOptions:
    """Randomise the list of arms, encrypted by HILUM_ALLOCATION_KEY."""

    folder: Study
    _: KW_ONLY
    method: Annotated[str, Setting("block: participants in blocks; cluster: whole clusters.", "NAME")]


@dataclass(frozen=True)
class StudyAssignOptions:
    """Give a participant the next arm, once."""

    folder: Study
    _: KW_ONLY
    participant: Annotated[str, Setting("The participant, or the cluster.", "ID")]
    assignments: Annotated[
        Mapping[str, str] | None,
        Setting("Level of a stratum; repeatable.", "STRATUM=LEVEL", "--set", repeats=True, read=_parse_settings),
    ] = None


@dataclass(frozen=True)
class StudyAnalyseOptions:
    """Analyse TABLE as the locked plan says."""

    folder: Study
    _: KW_ONLY
    data: Annotated[str | Path, Setting("A row a participant, with its arm and outcomes.", "TABLE")]
    out: StudyOut
    explore: Annotated[
        Mapping[str, str] | None,
        Setting(
            "Compare a further column by mean or proportion; repeatable.",
            "COLUMN=METRIC",
            repeats=True,
            read=_parse_explored,
        ),
    ] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class StudyBeforeAfterOptions:
    """Say what changed at a moment, from a series of events in TABLE."""

    data: Annotated[str | Path, Setting("A row a point in time, with its time and value.", "TABLE")]
    _: KW_ONLY
    at: Annotated[str, Setting("First time after the change, as in the table.", "TIME")]
    time: Annotated[str, Setting("Column of times: days, or whole numbers.", "COLUMN")] = "time"
    value: Annotated[str, Setting("Column of values.", "COLUMN")] = "value"
    season: Annotated[int, Ge(0), Setting("Points of a wave that returns, such as 12 months.", "N")] = 0
    out: Annotated[str | Path | None, Setting("Folder for before_after.json and report.html.", "FOLDER")] = None
    overwrite: Overwrite = False
