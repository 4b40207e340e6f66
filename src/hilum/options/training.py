"""Options of the verbs from data to a model that has been evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from hilum.options.shared_flags import (
    LARGEST_SEED,
    RESULTS,
    Activation,
    Assignments,
    Backend,
    Data,
    Device,
    FoldsBy,
    Groups,
    Kind,
    Lesions,
    Out,
    Overwrite,
    Positive,
    Scheduler,
    Seed,
    Threads,
    Trained,
    Uncertainty,
)
from hilum.reading import ReadingOptions
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.values import Dataset, Setting, Split
from hilum.values.dataset_cases import DataFrameLike

if TYPE_CHECKING:
    from hilum.runtime import Model

Minutes = Annotated[float | None, Gt(0), Setting("Minutes from now to the finished model; 60 by default.", "M")]
# Where the plan decides what nobody gives.
PlannedDevice = Annotated[str | None, Setting("Device to compute on: auto (the default), cpu, cuda:0 or mps.", "NAME")]
PlannedSeed = Annotated[int | None, Ge(0), Le(LARGEST_SEED), Setting("Seed of every random draw; 0 by default.", "N")]
Everything = Annotated[bool, Setting("Train on every case; no performance is estimated.", name="--all")]
Covariates = Annotated[
    str | Sequence[str] | None,
    Setting("Columns that the network gets with the images: all, none, or age,sex,gene_*; none by default.", "COLUMNS"),
]
AnyContrast = Annotated[bool, Setting("Learn from images painted from the label maps, for images of any contrast.")]
Warned = Annotated[
    Literal["train", "leave"] | None,
    Setting("Whether cases that a warning of check names train (the default), or are left out.", "WORD"),
]
Resume = Annotated[str | Path | None, Setting("Finish the run in this folder.", "RUN")]
Start = Annotated[str | Path | None, Setting("Start from the weights of this model.", "MODEL", "--from")]
Pretrained = Annotated[
    str | Path | None, Setting("File of weights, or auto for those that the network's authors published.", "FILE")
]
Deterministic = Annotated[bool, Setting("Make two runs bit-for-bit equal; needs --set training.steps=N.")]


@dataclass(frozen=True)
class CheckOptions(ReadingOptions):
    """Check DATA and report whether a model can be trained on it."""

    data: Annotated[str | Path | Dataset | DataFrameLike, Data]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    threads: Threads = None
    scheduler: Scheduler = None
    task: Kind = None
    lesions: Lesions = ()
    groups: Annotated[str | None, Setting("Groups of people to count: sex,age:40:60,site,sex*age.", "GROUPS")] = None
    population: Annotated[
        str | Path | None, Setting("Table of the population: shares of groups, or a row for each person.", "TABLE")
    ] = None
    shift: Annotated[str | None, Setting("Groups whose images are compared, such as site.", "GROUPS")] = None
    other_data: Annotated[
        Sequence[str | Path],
        Setting(
            "Data set or run that may hold the same cases otherwise; repeatable.", "OTHER", "--beside", repeats=True
        ),
    ] = ()
    match: Annotated[
        str | Sequence[str] | None, Setting("Covariates by which --shift matches patients: age,sex.", "COLUMNS")
    ] = None
    minutes: Annotated[
        float | None,
        Gt(0),
        Setting("Also train for so many minutes in all, and rank the cases by how doubtful their references are.", "M"),
    ] = None


@dataclass(frozen=True)
class PlanOptions(ReadingOptions):
    """Plan a training on DATA, with a reason for every decision."""

    data: Annotated[str | Path | Dataset | DataFrameLike, Data]
    _: KW_ONLY
    minutes: Minutes = None
    out: Annotated[str | Path | None, Setting("File for the plan.", "FILE", path="plan-<name>.yaml")] = None
    overwrite: Overwrite = False
    device: Device = "auto"
    device_memory: Annotated[
        float | None,
        Gt(0),
        Setting(
            "GiB of memory of the GPU that --device names, as in cuda:0; the GPU need not be in this machine.", "GIB"
        ),
    ] = None
    threads: Threads = None
    scheduler: Scheduler = None
    seed: Seed = 0
    everything: Everything = False
    folds: Annotated[int, Ge(0), Setting("Number of cross-validation folds; 0 for a single test part.", "K")] = 0
    folds_by: FoldsBy = None
    assignments: Assignments = None
    covariates: Covariates = None
    groups: Groups = None
    positive: Positive = None
    task: Kind = None
    lesions: Lesions = ()
    warned: Warned = None
    any_contrast: AnyContrast = False


@dataclass(frozen=True)
class CacheOptions:
    """List or empty the cache, which can be made again."""

    _: KW_ONLY
    empty: Annotated[Sequence[str], Setting("Empty this part, or all; repeatable.", "PART", repeats=True)] = ()


@dataclass(frozen=True)
class CasesOptions(ReadingOptions):
    """Prepare the cases of one part of DATA for a training loop of your own.

    transform: gets each item, augmented where that is asked for, and returns what the data set gives in its place
    """

    data: Annotated[str | Path | Dataset | DataFrameLike, Data]
    _: KW_ONLY
    part: Split = "train"  # type: ignore[assignment]  # of the data; that of complex voxels stands in dataset.toml
    seed: Seed = 0
    threads: Threads = None
    assignments: Assignments = None
    task: Kind = None
    covariates: Covariates = None
    augment: Annotated[bool, Setting("Change each case by the plan's augmentation.")] = False
    transform: Callable[[Mapping[str, Any]], Any] | None = None

    def __post_init__(self) -> None:
        assert self.reading  # noqa: S101 - it refuses what cannot be read so

    @property
    def reading(self) -> ReadingOptions:
        """The options of reading among these."""
        return ReadingOptions(
            **{one.name: getattr(self, one.name) for one in fields(ReadingOptions) if one.name != "part"}
        )


@dataclass(frozen=True)
class TrainOptions(ReadingOptions):
    """Train a model on DATA: check, plan, train, evaluate, report."""

    data: Annotated[
        str | Path | Dataset | DataFrameLike | None,
        Setting("Data as for `check`, or the .yaml file of a plan.", "DATA"),
    ] = None
    _: KW_ONLY
    minutes: Minutes = None
    out: Out = None
    overwrite: Overwrite = False
    resume: Resume = None
    end_now: Annotated[bool, Setting("With --resume: train no further; the best weights so far become the model.")] = (
        False
    )
    start: Start = None
    pretrained: Pretrained = None
    folds: Annotated[int | None, Ge(2), Setting("Number of cross-validation folds.", "K")] = None
    folds_by: FoldsBy = None
    tune: Annotated[
        float | None, Gt(0), Setting("Minutes, out of --minutes, to search for better decisions of the plan.", "M")
    ] = None
    deterministic: Deterministic = False
    device: PlannedDevice = None
    threads: Threads = None
    scheduler: Scheduler = None
    seed: PlannedSeed = None
    everything: Everything = False
    assignments: Assignments = None
    covariates: Covariates = None
    groups: Groups = None
    positive: Positive = None
    unlabelled: Annotated[
        Sequence[str | Path],
        Setting("Data of which only the images are used, for objectives.terms; repeatable.", "PATH", repeats=True),
    ] = ()
    target: Annotated[
        Sequence[str | Path],
        Setting(
            "Images without labels of the place where the model shall work, such as another scanner; repeatable.",
            "PATH",
            repeats=True,
        ),
    ] = ()
    domain: Annotated[
        str | None, Setting("Column with the place of each case, for objectives.terms such as dann.", "COLUMN")
    ] = None
    task: Kind = None
    lesions: Lesions = ()
    warned: Warned = None
    any_contrast: AnyContrast = False


@dataclass(frozen=True, kw_only=True)
class FederatedJobOptions:
    """Options of a job over sites, wherever they are."""

    rounds: Annotated[int, Ge(1), Setting("Number of times that the sites' weights become common ones.", "N")] = 20
    minutes: Minutes = None
    out: Annotated[str | Path | None, Setting("Folder for the job.", "JOB")] = None
    overwrite: Overwrite = False
    resume: Annotated[str | Path | None, Setting("Finish the job in this folder.", "JOB")] = None
    min_sites: Annotated[int | None, Ge(1), Setting("Fewest sites with which a round counts; all by default.", "N")] = (
        None
    )
    round_timeout: Annotated[
        float | None, Ge(1), Setting("Seconds that a site has for an answer; by default as long as it takes.", "S")
    ] = None
    restarts: Annotated[int, Ge(0), Setting("How often a job goes on after the loss of a process.", "N")] = 3
    membership: Annotated[
        bool, Setting("Also attack the model at each site: how well its errors tell training from test patients.")
    ] = False
    deterministic: Deterministic = False
    device: PlannedDevice = None
    threads: Threads = None
    seed: PlannedSeed = None
    everything: Everything = False
    assignments: Assignments = None
    positive: Positive = None
    task: Kind = None


@dataclass(frozen=True)
class FederateOptions(ReadingOptions, FederatedJobOptions):
    """Train one model over sites that keep their images.

    Their own folders lie in JOB.sites.
    """

    sites: Annotated[
        Mapping[str, str | Path | Dataset | DataFrameLike] | Sequence[str] | None,
        Setting("The sites' data, each as NAME=DATA.", "SITE", repeats=True, read=list),
    ] = None
    _: KW_ONLY
    transport: Annotated[
        Literal["local", "mtls"],
        Setting(
            "Way of messages: local (sites take turns in one process), or mtls (a process each, by NVFlare).", "NAME"
        ),
    ] = "local"


@dataclass(frozen=True)
class ProvisionFederationOptions:
    """Make the kits of a federation.

    Each holds the certificate and the settings of one party, the server or a site.
    """

    federation: Annotated[str | Path, Setting("YAML file with parties, host and port.", "FEDERATION")]
    _: KW_ONLY
    out: Annotated[str | Path, Setting("Folder for the kits, one for each party.", "KITS")]
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ServeFederationOptions(FederatedJobOptions):
    """Run one job as the server of a federation, and end."""

    kit: Annotated[str | Path, Setting("The server's kit.", "KIT")]
    _: KW_ONLY
    export: Annotated[
        str | Path | None, Setting("Write the job for a federation of NVFlare that runs already, and end.", "FOLDER")
    ] = None


@dataclass(frozen=True)
class JoinFederationOptions(ReadingOptions):
    """Take part in a federation as a site, whose images stay.

    ask: gets the plan, and says whether a person agrees to it
    """

    kit: Annotated[str | Path, Setting("The site's kit.", "KIT")]
    _: KW_ONLY
    data: Annotated[str | Path, Setting("The site's images: a folder or a table.", "DATA")]
    private: Annotated[
        str | Path | None, Setting("Folder for what stays at the site; by default `private` in the kit.", "FOLDER")
    ] = None
    min_count: Annotated[int, Ge(1), Setting("Fewest cases behind a fact that leaves the site.", "N")] = 10
    yes: Annotated[bool, Setting("Agree to any plan without being asked.")] = False
    ask: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class PretrainOptions(ReadingOptions):
    """Train a network on images without labels."""

    data: Annotated[
        str | Path | Dataset | Sequence[str | Path] | None,
        Setting("Folders, tables or archives of images; references are not read.", "DATA", repeats=True),
    ] = None
    _: KW_ONLY
    objective: Annotated[
        str | None,
        Setting(
            "What teaches the network: masked (the default where it gives an output for every voxel), contrast "
            "(the default elsewhere), rotation, image_text, which reads reports (--column text=COLUMN), or "
            "prototypical or maml, the only ones that read classes.",
            "NAME",
        ),
    ] = None
    minutes: Minutes = None
    leave_out: Annotated[
        str | Path | None, Setting("Leave out the validation, calibration and test patients of this run.", "RUN")
    ] = None
    out: Out = None
    overwrite: Overwrite = False
    resume: Resume = None
    start: Start = None
    pretrained: Pretrained = None
    deterministic: Deterministic = False
    device: PlannedDevice = None
    threads: Threads = None
    seed: PlannedSeed = None
    everything: Everything = False
    assignments: Assignments = None


@dataclass(frozen=True)
class EvaluateOptions(ReadingOptions, AuditOptions):
    """Score MODEL on the labelled cases of DATA, with intervals."""

    model: Annotated[str | Path | Model, Trained]
    data: Annotated[str | Path | Dataset | DataFrameLike, Data]
    _: KW_ONLY
    split: Annotated[
        Literal["train", "val", "calibration", "test", "all"] | None,
        Setting(
            "Cases to score: train, val, calibration, test or all. By default the test part; of other data without "
            "one all that did not train the model.",
            "PART",
        ),
    ] = None
    out: Out = None
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    backend: Backend = "auto"
    scheduler: Scheduler = None
    uncertainty: Uncertainty = None
    activation: Activation = None
    seed: Seed = 0
    positive: Positive = None
    private: Annotated[
        str | Path | None,
        Setting("A site's own folder of a training over sites, which says what trained there.", "FOLDER"),
    ] = None

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        AuditOptions.__post_init__(self)


@dataclass(frozen=True)
class CompareOptions:
    """Compare models on the same cases. Each difference has an interval, a test and a verdict."""

    evaluations: Annotated[
        Sequence[str | Path],
        Setting(
            "Runs, or folders that `evaluate` wrote; the others are compared with the first.", "MODEL", repeats=True
        ),
    ]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    seed: Seed = 0
    test: Annotated[
        str,
        Setting("Test of differences: auto (by metric), delong, permutation, bootstrap, mcnemar or wilcoxon.", "NAME"),
    ] = "auto"
    margin: Annotated[
        float | None,
        Gt(0),
        Setting("Margin of non-inferiority in the primary metric; by default the preregistered one.", "M"),
    ] = None
    correction: Annotated[str, Setting("Correction of p-values for multiple testing: holm, bh or none.", "NAME")] = (
        "holm"
    )
    readers: Annotated[
        str | Path | None,
        Setting(
            "Scores of human readers: columns reader, case, score; also model (as an aid), seconds and call.", "TABLE"
        ),
    ] = None
    groups: Annotated[
        str | None, Setting("Groups within which models are compared: sex,age:40:60,sex*age.", "COLUMNS")
    ] = None


@dataclass(frozen=True)
class EnsembleOptions:
    """Combine runs into one model. Seeds and networks may differ; the report compares it with each run."""

    runs: Annotated[Sequence[str | Path], Setting("Two or more finished runs on the same data.", "RUN", repeats=True)]
    _: KW_ONLY
    out: Annotated[str | Path, RESULTS]
    data: Annotated[
        str | Path | None, Setting("Folder where the runs' data are now, if they were moved.", "FOLDER")
    ] = None
    weights: Annotated[
        str, Setting("Weights of the runs: fitted to the validation cases where that is better, or equal.", "NAME")
    ] = "fitted"
    overwrite: Overwrite = False
    device: Device = "auto"
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True)
class DemoOptions:
    """Train on public data and predict one case. The last line is the path of the report.

    say: gets each line, first which data are used and why; by default it is logged
    """

    data: Annotated[str | Path | None, Setting("Your own data, in place of a public set.", "DATA")] = None
    _: KW_ONLY
    minutes: Annotated[float, Gt(0), Setting("Minutes from now to the finished model.", "M")] = 7.0
    out: Annotated[str | Path, Setting("Folder for the run.", "FOLDER")] = "demo"
    overwrite: Overwrite = False
    assignments: Assignments = None
    say: Callable[[str], None] | None = None
