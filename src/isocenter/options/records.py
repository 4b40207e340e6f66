"""Options of the verbs of documents, of changes of a model and of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from isocenter.documents.tracing import REQUIREMENTS
from isocenter.keywords import Flag
from isocenter.options.shared_flags import Device, Out, Overwrite, Seed, Threads
from isocenter.reading import ReadingOptions, reading_options

ChangePlan = Annotated[str | Path, Flag("The agreed plan of changes: change-plan.toml.", "FILE")]
ChangeOut = Annotated[str | Path | None, Flag("Folder for the results.", "FOLDER", path="change-<name>")]
Study = Annotated[str | Path, Flag("The folder of a study.", "FOLDER")]
StudyOut = Annotated[str | Path, Flag("Folder for what is written.", "FOLDER")]


def _parse_settings(texts: Sequence[str]) -> dict[str, str]:
    return reading_options.parse_pairs(texts, "--set")


def _parse_explored(texts: Sequence[str]) -> dict[str, str]:
    return reading_options.parse_pairs(texts, "--explore")


@dataclass(frozen=True)
class DocumentOptions:
    """Fill guidelines, cards and files from the records of SUBJECT."""

    subject: Annotated[str | Path, Flag("A run, a package, a node's folder or a study.", "SUBJECT")]
    _: KW_ONLY
    names: Annotated[
        str | Sequence[str],
        Flag("Documents, as claim,model-card; all: each that suits.", "NAME,...", "--for"),
    ] = "all"
    facts: Annotated[str | Path | None, Flag("facts.toml: what a person states, with name and day.", "FILE")] = None
    formats: Annotated[
        str | Sequence[str],
        Flag("html, docx, pdf and json, as html,docx.", "FORMAT,...", "--format"),
    ] = "html"
    out: Out = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class VerifyDocumentsOptions:
    """List the rows of documents in FOLDER that no longer hold."""

    folder: Annotated[str | Path, Flag("The documents that are checked.", "FOLDER")]
    _: KW_ONLY
    against: Annotated[str | Path, Flag("Subject whose records are read anew.", "SUBJECT")]


@dataclass(frozen=True)
class TraceRequirementsOptions:
    """Trace requirements, promises and hazards to code and tests."""

    requirements: Annotated[
        str | Path,
        Flag("The requirements, in a project with pyproject.toml.", "FILE", "--requirements"),
    ] = REQUIREMENTS
    _: KW_ONLY
    junit: Annotated[
        str | Path | None,
        Flag("Results of the tests, as pytest --junitxml writes them.", "FILE"),
    ] = None
    out: Annotated[str | Path | None, Flag("Folder for trace.json; nothing is written without it.", "FOLDER")] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class CheckChangeOptions(ReadingOptions):
    """Check that NEW changed as planned, and is as good on the locked set."""

    old: Annotated[str | Path, Flag("The package that is in use.", "OLD")]
    new: Annotated[str | Path, Flag("The package that shall take its place.", "NEW")]
    _: KW_ONLY
    plan: ChangePlan
    data: Annotated[str | Path, Flag("The locked set. A ledger next to it counts the looks.", "DATA")]
    approved: Annotated[str | Path | None, Flag("The approved package, where OLD is a changed one.", "PACKAGE")] = None
    run: Annotated[
        str | Path | None,
        Flag("The run of NEW, whose patients must not be in the locked set.", "RUN"),
    ] = None
    out: ChangeOut = None
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True)
class AcceptOptions(ReadingOptions):
    """Test MODEL at a site by an agreed plan, once. First lock the plan with the cases (--lock)."""

    model: Annotated[str | Path, Flag("The package that shall answer here.", "MODEL")]
    data: Annotated[str | Path, Flag("Labelled cases of the site. A ledger next to them counts the look.", "SITE_DATA")]
    _: KW_ONLY
    plan: Annotated[str | Path, Flag("What was agreed: docs/how-to/accept.md shows one.", "ACCEPTANCE.toml")]
    lock: Annotated[bool, Flag("Only lock the plan with the cases, in ACCEPTANCE.toml.lock.")] = False
    config: Annotated[
        str | Path | None,
        Flag("Also check that a node answers each scanner in time and its peers get the results.", "FILE"),
    ] = None
    out: Out = None
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True)
class ProposeChangeOptions:
    """Propose to train anew where a trigger of the plan has fired. Nothing is trained."""

    package: Annotated[str | Path, Flag("The package that is in use.", "PACKAGE")]
    _: KW_ONLY
    plan: ChangePlan
    monitored: Annotated[str | Path, Flag("Folder that `monitor` wrote.", "FOLDER")]
    out: ChangeOut = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class StudySizeOptions:
    """Size a study: how many participants it needs, or its power, or the effect that it finds."""

    design: Annotated[
        str,
        Flag(
            "proportion, proportions, paired-proportions, means, auroc, mrmc, survival, prediction-model, "
            "stepped-wedge or before-after.",
            "DESIGN",
        ),
    ]
    _: KW_ONLY
    assignments: Annotated[
        Mapping[str, Any] | None,
        Flag("Set an input of the design; repeatable.", "NAME=VALUE", "--set", repeats=True, read=_parse_settings),
    ] = None
    simulate: Annotated[int, Flag("Check the power by so many simulated studies.", "N", least=0)] = 0
    seed: Seed = 0


@dataclass(frozen=True)
class StudyPlanOptions:
    """Write protocol, plan of analysis and fields of a registry from STUDY."""

    plan: Annotated[str | Path, Flag("The plan of a trial: study.toml.", "STUDY")]
    _: KW_ONLY
    out: StudyOut
    overwrite: Overwrite = False


@dataclass(frozen=True)
class StudyLockOptions:
    """Seal the plan in FOLDER, or an amendment of it."""

    folder: Study
    _: KW_ONLY
    reason: Annotated[str, Flag("Why a locked plan is amended.", "TEXT")] = ""


@dataclass(frozen=True)
class StudyRandomiseOptions:
    """Draw the list of arms, encrypted by ISOCENTER_ALLOCATION_KEY."""

    folder: Study
    _: KW_ONLY
    method: Annotated[str, Flag("block: participants in blocks; cluster: whole clusters.", "NAME")]


@dataclass(frozen=True)
class StudyAssignOptions:
    """Give a participant the next arm, once."""

    folder: Study
    _: KW_ONLY
    participant: Annotated[str, Flag("The participant, or the cluster.", "ID")]
    assignments: Annotated[
        Mapping[str, str] | None,
        Flag("Level of a stratum; repeatable.", "STRATUM=LEVEL", "--set", repeats=True, read=_parse_settings),
    ] = None


@dataclass(frozen=True)
class StudyAnalyseOptions:
    """Analyse TABLE as the locked plan says."""

    folder: Study
    _: KW_ONLY
    data: Annotated[str | Path, Flag("A row a participant, with its arm and outcomes.", "TABLE")]
    out: StudyOut
    explore: Annotated[
        Mapping[str, str] | None,
        Flag(
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

    data: Annotated[str | Path, Flag("A row a point in time, with its time and value.", "TABLE")]
    _: KW_ONLY
    at: Annotated[str, Flag("First time after the change, as in the table.", "TIME")]
    time: Annotated[str, Flag("Column of times: days, or whole numbers.", "COLUMN")] = "time"
    value: Annotated[str, Flag("Column of values.", "COLUMN")] = "value"
    season: Annotated[int, Flag("Points of a wave that returns, such as 12 months.", "N", least=0)] = 0
    out: Annotated[str | Path | None, Flag("Folder for before_after.json and report.html.", "FOLDER")] = None
    overwrite: Overwrite = False
