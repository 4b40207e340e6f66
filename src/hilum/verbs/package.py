"""`package`: a finished run as one folder or file that runs elsewhere, also without Hilum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NotRequired

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.evaluation.case_tables import SUMMARY_SCHEMA
from hilum.evaluation.metric import REPEATABILITY
from hilum.federation import federated_run
from hilum.files import code_file
from hilum.files.storage import atomic, csv_text
from hilum.lazy import pandas as pd
from hilum.options.models import PackageOptions
from hilum.planning import plan_file
from hilum.reading import verb_results
from hilum.reading.images_of_maps import NO_IMAGE
from hilum.runs import privacy_record, run_folder
from hilum.runs.run_end import NOTES_SCHEMA
from hilum.runs.run_folder import MARKS as RUN_MARKS
from hilum.runs.run_folder import NOTES
from hilum.runtime import Model, hardware, label_measurements, model_files, record_files, result_codes
from hilum.runtime.model_files import REPORT
from hilum.runtime.model_schema import OnnxRecord
from hilum.runtime.package import backends, certification, monai_metadata, package_writing, triton
from hilum.runtime.package.backend_certificate import Certificate
from hilum.runtime.package.monai_metadata import NO_POINTING
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.runtime.package.readme import RUN_COMMAND
from hilum.runtime.package.triton import NETWORK_ALONE, TRITON_RECORD
from hilum.scoring import data_record
from hilum.scoring.auditing.group_audit import OF_GROUPS
from hilum.scoring.case_scoring import EVALUATION, RECIPE, SUMMARY
from hilum.scoring.explaining import kept_tests
from hilum.values import Decision, Plan, Row
from hilum.values.finding import CodedName
from hilum.values.finding_records import CodedNameRecord
from hilum.values.record_schema import RecordHead, RecordSchema

# What an image of these parts decided shows in every figure on it.
TRAINS = ("train", "val", "calibration")
PRIVATE = (
    "Its weights bound what they tell of any person who trained it: privacy.json says by how much, and what it leaves "
    "out. So no hash says which images these were, and nothing keeps them from being tested on."
)
PARTS = {"train": "training", "val": "selection", "calibration": "calibration", "test": "testing"}
MONAI, TRITON = "monai", "triton"
PACKAGE_FORMATS = (MONAI, TRITON)
# In the folder of a repository of networks.
SERVE_COMMAND = "tritonserver --model-repository=."
# What somebody may expect to be written, and would get a folder of that name.
OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# What tells a package's folder from any other.
MARKS = ("manifest.json", "configs/metadata.json", "hilum/model.json")


class PackagingRecord(RecordHead):
    """What was packed, and which backends run it; run: the command that runs it without Hilum.

    origin, trusted: of a model of another program, and what its checkpoints may call
    """

    out: str
    run: str
    onnx: OnnxRecord
    networks: int
    format: str
    gate: str
    estimated: bool
    certificate: Certificate | None
    codes: dict[str, CodedNameRecord]
    origin: NotRequired[str]
    trusted: NotRequired[list[str]]


PACKAGE_SCHEMA = RecordSchema("hilum.package", PackagingRecord)


@dataclass(frozen=True)
class PackagingResult:
    """The package that was written, and its parts.

    onnx:        whether the network could be written as ONNX, and how far that is from torch
    certificate: which backends say what torch says, and how fast; None where none was asked for
    format:      one of `PACKAGE_FORMATS`
    codes:       of each name that results state; those with a private code last
    unbundled:   why it runs with Hilum alone; empty where MONAI runs it
    gate:        on what it refuses images
    """

    out: Path
    onnx: OnnxRecord
    networks: int
    estimated: bool
    certificate: Certificate | None = None
    format: str = field(default=MONAI, kw_only=True)
    codes: Mapping[str, CodedName] = field(default_factory=dict)
    gate: str = ""
    unbundled: str = field(default="", kw_only=True)

    def as_record(self) -> PackagingRecord:
        """The record for `--json`."""
        codes = {name: coded.record for name, coded in self.codes.items()}
        return PACKAGE_SCHEMA.record_of(self, run=self._command, codes=codes, origin=None, trusted=None)

    @property
    def _command(self) -> str:
        """Command that runs it without Hilum, in its folder; empty where there is none."""
        if self.unbundled and self.format == MONAI:
            return ""
        return RUN_COMMAND if self.format == MONAI else SERVE_COMMAND

    def __repr__(self) -> str:
        where = f"unpack {self.out}, and in its folder" if self.out.suffix == ".zip" else f"in {self.out}"
        ours = [f"with Hilum: hilum predict {self.out} IMAGES"] if self.format == MONAI else []
        same = f"ONNX agrees with torch to {self.onnx.get('largest_difference', 0):.1g} of the largest output"
        lines = [
            str(self.out),
            *ours,
            f"without: {where}: {self._command}" if self._command else self.unbundled,
            *([] if self.format == MONAI else [f"{NETWORK_ALONE}."]),
            same if self.onnx["exported"] else f"no ONNX: {self.onnx['because']}",
            self.gate,
            *([] if self.certificate is None else self.certificate.lines),
            *(f"code of {name}: {_in_words(coded)}" for name, coded in self.codes.items()),
        ]
        nothing = "nothing is estimated: no case was scored that the model had not seen"
        return "\n".join(lines if self.estimated else [*lines, nothing])


def _in_words(coded: CodedName) -> str:
    """The codes of a name with their source."""
    if not coded.codes:
        return "private (99HILUM); name it in --codes"
    unit = f", in {coded.unit}" if coded.unit else ""
    return f"{'; '.join(f'{one.scheme} {one.value}, {one.meaning}' for one in coded.codes)}{unit} ({coded.source})"


@keywords.takes(PackageOptions)
def package(options: PackageOptions) -> PackagingResult:
    """The run's model as a MONAI bundle: a folder, or a zip where `out` ends so. A run of folds becomes their mean.

    backends: which of them predict the run's validation cases beside torch, for the certificate by which
              `predict` chooses; all that are here if not said, none and no certificate for ()
    codes:    a table name,scheme,value,meaning[,unit]: several rows of one name are equivalents, of which the first
              goes into DICOM. Other names keep the codes of the data, or get that of DICOM's dictionary
    Who made it and whose it is, is what HILUM_AUTHORS and HILUM_COPYRIGHT say.
    Raises UsageError for what is no finished run, or a backend that nobody knows, and FormatError for a table of codes
    that cannot be understood.
    """
    run = options.run
    out = options.out
    run, out = Path(run), Path(out)
    if options.format not in PACKAGE_FORMATS:
        raise UsageError(f"there is no {options.format!r}", "--format", f"Choose {' or '.join(PACKAGE_FORMATS)}")
    of_models = {"backends": options.backends, "codes": options.codes, "measure": options.measure}
    given = [f"--{name}" for name, one in {**of_models, "repeats": options.repeats}.items() if one]
    if options.format == TRITON and given:
        raise UsageError("is for whole models, and this is a network alone", given[0], "Leave it out")
    verb_results.refuse_missing(run)
    plan = finished_plan(run)
    zipped = is_zip(out)
    marks = MARKS if options.format == MONAI else (TRITON_RECORD,)
    verb_results.refuse_taken(out, options.overwrite, () if zipped else marks)
    backends.refuse_unknown_backends(options.backends or (), "--backends")
    codes = {} if options.codes is None else code_file.read_codes(Path(options.codes))
    loaded = model_files.load(run, "cpu")
    model = result_codes.with_codes(loaded, codes)
    model = label_measurements.with_ratios(model, label_measurements.checked_ratios(options.measure, model.task))
    stages = [*(model.members or (model,)), *([model.first] if model.first else [])]
    networks = sum(len(one.networks.members) for one in stages)
    if options.format == TRITON:
        estimated = bool(_rows(run))
        with new_package_folder(out, options.overwrite, zipped, marks) as folder:
            onnx = triton.write_triton(model, out.stem if zipped else out.name, folder)
        return PackagingResult(out, onnx, networks, estimated, format=options.format, gate=str(model.gate))
    evidence = run_evidence(run, loaded, plan)
    if options.repeats is not None:
        others = [row for row in evidence.rows if row.metric != REPEATABILITY.name]
        evidence = replace(evidence, rows=[*others, *_repeatability(Path(options.repeats), plan)])
    rows = evidence.rows
    with new_package_folder(out, options.overwrite, zipped) as folder:
        onnx = package_writing.write_package(model, evidence, folder.name, folder)
        certificate = (
            None if options.backends == () else _certify(folder, model, run, plan, options.backends, options.threads)
        )
    unbundled = monai_metadata.why_unbundled(model) or NO_POINTING * model.task.takes_prompts
    return PackagingResult(
        out, onnx, networks, bool(rows), certificate, code_table(model), str(model.gate), unbundled=unbundled
    )


def code_table(model: Model) -> dict[str, CodedName]:
    """The codes of a model's names, those with a private code last."""
    return dict(sorted(result_codes.codes_of_model(model).items(), key=lambda one: not one[1].codes))


def run_evidence(run: Path, model: Model, plan: Plan) -> PackageEvidence:
    """The evidence that a finished run has about its model; of images only their hashes."""
    rows, private = _rows(run), privacy_record.privacy_texts(run)
    limits = [*_limits(run, bool(rows)), *([PRIVATE] if private else [])]
    known = TRAINS[1:] if private else TRAINS  # whoever has an image could look it up among those that trained
    return PackageEvidence(
        rows,
        limits,
        _decisions(plan),
        _hashes(run, known),
        _hashes(run, ("test",)),
        kept_tests.kept_content(run, model),
        audit_texts(run / EVALUATION) | private,
    )


def audit_texts(folder: Path) -> dict[str, str]:
    """{file name: text} of what was found about groups of people, in a run's evaluation or a package's own folder."""
    files = [folder / name for name in OF_GROUPS]
    return {path.name: path.read_text(encoding="utf-8") for path in files if path.is_file()}


def _certify(
    folder: Path, model: Model, run: Path, plan: Plan, names: Sequence[str] | None, threads: int | None
) -> Certificate:
    """Made with the run's validation cases, on the CPU and on a GPU where there is one."""
    images = run_folder.validation_images(run, plan)
    devices = tuple(dict.fromkeys(("cpu", hardware.choose_device("auto").value)))
    return certification.certify(
        folder, model, images, images.description, names=names, devices=devices, threads=threads
    )


def is_zip(out: Path) -> bool:
    """Whether a package is to be one file; UsageError for an archive that is no zip."""
    if out.suffix.lower() in OTHER_ARCHIVES:
        raise UsageError(f"a package is never written as {out.suffix}", str(out), "Give a folder or a .zip")
    return out.suffix.lower() == ".zip"


@contextmanager
def new_package_folder(out: Path, overwrite: bool, zipped: bool, marks: tuple[str, ...] = MARKS) -> Iterator[Path]:
    """An empty folder to write the package into, which becomes `out`, or a zip there, when all went well.

    marks: files that tell an older folder of ours, which may be replaced
    """
    try:
        if not zipped:
            with verb_results.result_folder(out, overwrite, marks) as folder:
                yield folder
            return
        with atomic.write_whole(out, overwrite=overwrite) as partial:
            folder = partial.with_name(out.stem)
            folder.mkdir()
            yield folder
            record_files.write_zip(folder, partial)
    except OSError as error:
        raise atomic.unwritable_error(error, out) from error


def finished_plan(run: Path) -> Plan:
    """The plan of a run that is finished."""
    if not all((run / mark).is_file() for mark in RUN_MARKS) and not federated_run.is_job(run):
        raise UsageError("holds no run", str(run), "Give the folder that `hilum train` wrote")
    if not (run / REPORT).is_file():
        raise UsageError("is not finished", str(run), f"Finish it with `hilum train --resume {run}`")
    return plan_file.read_plan(run / "plan.yaml")


def _decisions(plan: Plan) -> dict[str, Decision]:
    """The decisions and their reasons; of a file on this machine no more than its name."""
    decisions = {}
    for name, decision in plan:
        several = isinstance(decision.value, list | tuple)
        values, because = list(decision.value) if several else [decision.value], decision.because
        paths = [one for one in values if isinstance(one, str) and Path(one).is_absolute()]
        for path in paths:
            because = because.replace(path, "a file")
        named = [Path(one).name if one in paths else one for one in values]
        decisions[name] = Decision(named if several else named[0], because) if paths else decision
    return decisions


def _rows(run: Path) -> list[Row]:
    """The figures of the run's evaluation; none where every case was trained on."""
    path = run / "evaluation" / "summary.json"
    return case_tables.rows_from_json(record_files.read_json(path, SUMMARY_SCHEMA)) if path.is_file() else []


def _repeatability(folder: Path, plan: Plan) -> list[Row]:
    """The repeatability of measurements that `evaluate` wrote; UsageError of another model, or without any."""
    verb_results.refuse_missing(folder / SUMMARY)
    summary = record_files.read_json(folder / SUMMARY, SUMMARY_SCHEMA)
    if summary.get(RECIPE) != plan_file.recipe_digest(plan).get(RECIPE):
        raise UsageError("is of another model", str(folder), "Give what `hilum evaluate` wrote of this run")
    found = [row for row in case_tables.rows_from_json(summary) if row.metric == REPEATABILITY.name]
    if not found:
        remedy = "Evaluate two images each of patients in whom nothing changed: a column `repeat` may name them"
        raise UsageError("states no repeatability", str(folder), remedy)
    return found


def _hashes(run: Path, parts: Collection[str]) -> list[str]:
    """Hashes of what was in these parts, without names: by them `evaluate` and `calibrate` know these images."""
    if federated_run.is_job(run):  # hashes stay where the images are
        return []
    record = data_record.read_data_record(run)
    table = csv_text.read_text_table(run / "split.csv")
    inherited = record.inherited if set(TRAINS[1:]) <= set(parts) else frozenset[str]()
    return sorted(record.hashes(table.loc[table["split"].isin(list(parts)), "case"]) | inherited)


def _limits(run: Path, estimated: bool) -> list[str]:
    """The limits that a reader must know before any figure. Cases are counted here, and never named."""
    record = record_files.read_json(run / NOTES, NOTES_SCHEMA)
    verdict = record["verdict"]
    notes = list(dict.fromkeys((*verdict["training"], *verdict["against"], *record["notes"])))
    nothing = "Nothing is estimated." if NO_IMAGE in notes else "Every case was trained on: nothing is estimated."
    if federated_run.is_job(run):
        return [*notes, *([] if estimated else ["Nothing is estimated."])]
    parts = _parts_in_words(csv_text.read_text_table(run / "split.csv"))
    return [parts, *notes, *([] if estimated or nothing in notes else [nothing])]


def _parts_in_words(table: pd.DataFrame) -> str:
    """The number of cases that trained the model, and of those that each part scored; table: `split.csv`"""
    cases, counts = errors.count_phrase(table["case"].nunique(), "case"), Counter(table["split"])
    if table["fold"].nunique() < 2:
        parts = [f"{counts[part]} for {what}" for part, what in PARTS.items() if counts[part]]
        return f"{cases}: {', '.join(parts)}."
    own_test = table.loc[table["fold"] == "", "case"].nunique()
    if not own_test:
        return (
            f"{cases}, trained and tested by cross-validation: each was scored by the network that had not seen it. "
            "The mean of the networks, which is this model, was not scored itself."
        )
    crossed, own = (errors.count_phrase(count, "case") for count in (table["case"].nunique() - own_test, own_test))
    return (
        f"{crossed}, trained by cross-validation, and {own} of the set's own test part, which no network has seen: the "
        "figures are those of this model, the mean of the networks, on that part."
    )
