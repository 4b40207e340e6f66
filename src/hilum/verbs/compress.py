"""`compress`: a model small and fast, each variant with its price on cases that decided nothing of it."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from typing_extensions import TypedDict

from hilum import errors, keywords
from hilum.errors import HilumError, ResourceError, UsageError
from hilum.evaluation import Table, case_tables
from hilum.evaluation.significance import margins
from hilum.files.storage import csv_text, file_lock, hashing, structured_text
from hilum.lazy import pandas as pd
from hilum.options.models import CompressOptions
from hilum.reading import dataset_reading, verb_results
from hilum.runs.run_folder import MARKS as RUN_MARKS
from hilum.runs.run_folder import MOST
from hilum.runtime import Model, ModelRequest, hardware, model_files, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.package import backends, certification, package_contents, package_writing, quantising
from hilum.runtime.package.backend_certificate import PLAIN, QUANTISED, TYPICAL_IMAGES, BackendTrial, Certificate
from hilum.runtime.package.package_contents import MADE
from hilum.runtime.package.quantising import QuantisationFacts
from hilum.scoring.case_scoring import CASES
from hilum.transforms import channel_stack
from hilum.values import Dataset, plain_values, record_schema
from hilum.values.record_schema import RecordSchema
from hilum.verbs import evaluate, package
from hilum.verbs.compressing import case_roles, compression_rows, quantised_package, variant_price
from hilum.verbs.compressing.case_roles import CaseRoles
from hilum.verbs.compressing.compression_page import CompressionPage
from hilum.verbs.compressing.compression_rows import FLOAT, CostTarget, VariantRow
from hilum.verbs.compressing.quantised_package import BACKENDS_OF, Quantisation
from hilum.verbs.compressing.student_runs import PRUNE, STUDENTS, Students
from hilum.verbs.compressing.variant_price import VariantPrice
from hilum.work_state import log

MARKS = ("compression.json", "report.html")
REQUEST_SCHEMA = "hilum.compression.request"
# While a compression is not finished: what was asked for, and the parts that are done.
REQUEST, PARTS = "request.json", "parts"
PACKAGE, CHANGED = "package", "changed.csv"
RECERTIFY = "recertify"
VARIANTS: Mapping[str, Collection[str]] = {**BACKENDS_OF, **STUDENTS}
METHODS = (*VARIANTS, RECERTIFY)
# So often all backends are timed, one after the other.
ROUNDS = 3


class CompressionRecord(TypedDict):
    """A row a variant and backend, the cases that decided, and what a target came to."""

    rows: list[VariantRow]
    decided_by: str
    target: str | None


SCHEMA = RecordSchema("hilum.compression", CompressionRecord)


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """The variants of a model, each with its price; prints a line each."""

    out: Path
    rows: tuple[VariantRow, ...]
    prices: Mapping[str, VariantPrice] = field(default_factory=dict)
    parts: str = ""
    target: CostTarget | None = None

    @property
    def unmet(self) -> str:
        """How near the nearest variant comes to a target that nothing meets; else empty."""
        unmet = self.target is not None and self.target.best_row(self.rows) is None
        return self.target.sentence(self.rows) if self.target is not None and unmet else ""

    def as_record(self) -> CompressionRecord:
        """The record for `--json` and for `compression.json`."""
        target = None if self.target is None else self.target.sentence(self.rows)
        return {"rows": record_schema.plain(self.rows), "decided_by": self.parts, "target": target}

    @property
    def table(self) -> pd.DataFrame:
        """A row a variant and backend."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def __repr__(self) -> str:
        target = [] if self.target is None else [self.target.sentence(self.rows)]
        return "\n".join([self.parts, *(row.line for row in self.rows), str(self.out / MARKS[1]), *target])


@keywords.takes(CompressOptions)
def compress(options: CompressOptions) -> CompressionResult:
    """Variants of a model with fewer bits or weights, each measured on cases that decided nothing of it.

    model:   a run, or a package
    data:    labelled cases: its training cases give ranges, others decide what is lost
    methods: some of int8, int4, distil and prune, or recertify
    out:     a folder for package/, runs/, compression.json, changed.csv and report.html
    resume:  go on with what a stopped command left in `out`
    A variant is taken by `predict` only on a processor like the one here, and only where it passed.
    Raises UsageError where cases are too few for ranges or price, ResourceError without the extra.
    """
    source, out = Path(options.model), Path(options.out)
    target = None if options.target is None else CostTarget(options.target)
    methods = _checked_methods(options)
    verb_results.refuse_missing(source)
    if not options.resume:
        verb_results.refuse_taken(out, options.overwrite, MARKS)
    run = source if all((source / mark).is_file() for mark in RUN_MARKS) else None
    loaded = replace(
        model_files.load(source, "cpu", threads=options.threads),
        request=ModelRequest(allow_large=options.reading.allow_large),
    )
    if run is None and detect.is_foreign(source):
        raise UsageError("is a model of another program", str(source), "Make it a package first: hilum adopt")
    if loaded.preprocessing.tiles is not None:
        problem = "answers for bags of tiles, whose two halves no method makes smaller"
        raise UsageError(problem, str(source), "Package it as it is")
    plan = None if run is None else package.finished_plan(run)
    data = dataset_reading.path_for_workers(options.data, None)
    reading = evaluate.reading_as_trained(run, plan, data).overridden(options.reading)
    dataset = evaluate.open_references(data, reading, loaded, run)
    roles = case_roles.assign_roles(
        loaded, dataset, run, samples=options.samples if set(methods) & set(BACKENDS_OF) else 0, seed=options.seed
    )
    log.info("%s", roles.parts)
    with file_lock.hold_lock(out):
        _open_folder(options, out, source, dataset, methods)
        result = _Compression(options, out, source, run, loaded, roles, methods, target).finish()
        shutil.rmtree(out / PARTS)
        (out / REQUEST).unlink()
    return result


def _checked_methods(options: CompressOptions) -> tuple[str, ...]:
    methods = keywords.as_tuple(options.methods)
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"there is no method {name!r}", "--methods", f"Choose from {', '.join(METHODS)}")
    if RECERTIFY in methods and len(methods) > 1:
        raise UsageError(f"{RECERTIFY} makes nothing anew", "--methods", "Give it alone")
    margins.refuse_impossible_margin(options.loss, "--loss")
    needed = {"int8": ("openvino", "nncf"), PRUNE: ("torch_pruning",)}
    quantising.refuse_missing_extra(*(module for method in methods for module in needed.get(method, ())))
    return methods


def _open_folder(options: CompressOptions, out: Path, source: Path, dataset: Dataset, methods: Sequence[str]) -> None:
    """Make the folder, or go on with the one that an earlier command of the same request left."""
    asked = {name: getattr(options, name) for name in ("loss", "samples", "groups", "minutes", "seed", "threads")}
    request = {"model": str(source.resolve()), "data": hashing.dataset_hash(dataset), "methods": list(methods), **asked}
    if options.resume:
        if not (out / REQUEST).is_file():
            raise UsageError("holds no unfinished compression", str(out), "Leave --resume out")
        before = record_files.read_json(out / REQUEST, REQUEST_SCHEMA)
        if other := [name for name, value in request.items() if before.get(name) != plain_values.as_json(value)]:
            raise UsageError(f"was begun with another {other[0]}", str(out), "Give the same, or another --out")
        return
    if out.exists():
        shutil.rmtree(out)
    (out / PARTS).mkdir(parents=True)
    record_files.write_json(out / REQUEST, REQUEST_SCHEMA, request)


@dataclass(frozen=True, eq=False)
class _Compression:
    """One command: parts that are made once, and the result from them."""

    options: CompressOptions
    out: Path
    source: Path
    run: Path | None
    loaded: Model
    roles: CaseRoles
    methods: Sequence[str]
    target: CostTarget | None = None

    def finish(self) -> CompressionResult:
        """Make what is not made yet, and write the result."""
        made = self._made_files()
        folder = quantised_package.made_once(
            self.out / PACKAGE,
            partial(quantised_package.assemble, self._base, made, self.roles.ranges, self.options.seed),
        )
        students, refused = self._students()
        refused |= {name: facts["refused"] for name, facts in self._facts(made).items() if "refused" in facts}
        exact, failed = self._scored(PLAIN, folder, PLAIN)
        for problem in failed:
            log.warning("left out: %s", problem)
        quantised = {name: (folder, name) for name in package_contents.package_record(folder).get(MADE) or ()}
        places = {**quantised, **{name: (place, PLAIN) for name, place in students.items()}}
        prices = {name: self._price(name, *place, exact) for name, place in places.items()}
        certificate = self._certificate(folder, self.loaded, {name: prices[name] for name in quantised})
        rows = self._rows(folder, certificate, prices)
        for name, place in students.items():
            trials = self._certificate(place, model_files.load(place, "cpu"), {}).trials
            rows += [compression_rows.variant_row(place, one, prices[name], name) for one in trials]
        methods = {one: method for method, names in VARIANTS.items() for one in names}
        rows += [VariantRow(variant=methods[name], backend=name, because=why) for name, why in refused.items()]
        result = CompressionResult(self.out, tuple(rows), prices, self.roles.parts, self.target)
        changed = {
            name: variant_price.changed_cases(exact, self._scored(name, *place)[0], self.loaded.task, price.metric)
            for name, place in places.items()
            if (price := prices[name]).test is not None
        }
        _write_changed([table.assign(variant=name) for name, table in changed.items()], self.out / CHANGED)
        read = {name: partial(self._model, *place) for name, place in {PLAIN: (folder, PLAIN), **places}.items()}
        page = CompressionPage(self.source.name, rows, prices, changed, self.roles, certificate.machine)
        (self.out / MARKS[1]).write_text(page.html(read), encoding="utf-8")
        record_files.write_json(self.out / MARKS[0], SCHEMA, result.as_record())
        return result

    def _students(self) -> tuple[dict[str, Path], dict[str, str]]:
        """{variant: package} of the networks that were trained, and why others were not."""
        packages, refused = dict[str, Path](), dict[str, str]()
        options, parts = self.options, self.out / PARTS
        students = Students(
            self.run, self.loaded, parts, options.assignments or {}, options.minutes, options.threads, options.seed
        )
        for name in (one for method in self.methods for one in STUDENTS.get(method, ())):
            out = self.out / "runs" / name
            try:
                students.train(name, out)
            except HilumError as error:
                log.warning("%s: %s", name, error)
                refused[name] = f"{error.problem}. {error.remedy}"
                continue
            packages[name] = quantised_package.made_once(parts / f"package-{name}", partial(_write_run_package, out))
        return packages, refused

    @property
    def _base(self) -> Path:
        """The package to which variants are added."""

        def fill(folder: Path) -> None:
            """Write the run's package, or copy the one that was given."""
            if self.run is not None:
                _write_run_package(self.run, folder)
                return
            with record_files.unpack(self.source) as given:
                record_files.verify_seal(given)
                shutil.copytree(given, folder, dirs_exist_ok=True)

        return quantised_package.made_once(self.out / PARTS / "base", fill)

    def _made_files(self) -> dict[str, Path]:
        """{backend: folder with its files, or why there are none} of the methods that were asked for."""
        primary = self.loaded.record.get("primary")
        work = Quantisation(
            self._base, self.loaded, self.roles, primary, float(self.options.loss), int(self.options.seed)
        )
        names = [name for method in self.methods for name in BACKENDS_OF.get(method, ())]
        made = {}
        for name in names:
            log.info("making %s", name)
            made[name] = quantised_package.made_once(self.out / PARTS / name, partial(work.write, name))
        return made

    def _facts(self, made: Mapping[str, Path]) -> dict[str, QuantisationFacts]:
        return {name: quantised_package.facts_of(place) for name, place in made.items()}

    def _model(self, folder: Path, backend: str) -> Model:
        model = quantised_package.read_on(folder, backend, self.options.threads)
        return replace(model, request=self.loaded.request)

    def _scored(self, name: str, folder: Path, backend: str) -> tuple[Table, list[str]]:
        """(table, what failed) of the deciding cases by a package on a backend, kept for a command that goes on."""

        def fill(place: Path) -> None:
            """Score and keep."""
            log.info("scoring %s on %s", name, errors.count_phrase(len(self.roles.deciding), "case"))
            table, failed = variant_price.score_table(self._model(folder, backend), self.roles.deciding)
            csv_text.write_table(table, place / CASES)
            record_files.write_json(place / "failed.json", f"{SCHEMA}.failed", {"failed": failed})

        place = quantised_package.made_once(self.out / PARTS / f"scores-{name}", fill)
        failed = structured_text.load_json(place / "failed.json")["failed"]
        return case_tables.read_cases(place / CASES), list(failed)

    def _price(self, name: str, folder: Path, backend: str, exact: Table) -> VariantPrice:
        """The price of a variant; one that cannot be computed has none, and the reason."""
        try:
            with errors.foreign_errors(partial(_not_computed, backend)):
                table, failed = self._scored(name, folder, backend)
        except HilumError as error:
            return VariantPrice.unknown(error.problem)
        if failed:
            return VariantPrice.unknown(f"{errors.count_phrase(len(failed), 'case fails', 'cases fail')}: {failed[0]}")
        return variant_price.price_of(
            exact,
            table,
            self.loaded.task,
            other=self._model(folder, PLAIN).task,
            loss=float(self.options.loss),
            primary=self.loaded.record.get("primary"),
            groups=self.options.groups,
            seed=self.options.seed,
            patients_known=self.roles.patients_known,
        )

    def _certificate(self, folder: Path, model: Model, prices: Mapping[str, VariantPrice]) -> Certificate:
        """The certificate of the package on this machine, with the verdict on each quantised network."""
        usual = [name for name in backends.quick_backends() if backends.find_backend(name).precision not in QUANTISED]
        cases = self.roles.deciding[:MOST]
        images = (channel_stack.stack_images(case.images, case.id) for case in cases)
        words = f"{len(cases)} of {errors.count_phrase(len(self.roles.deciding), self.roles.which)}"
        made = certification.certify(
            folder, model, images, words, names=[*usual, *prices], threads=self.options.threads, rounds=ROUNDS
        )
        judged = replace(made, trials=[_with_accuracy(one, prices.get(one.backend)) for one in made.trials])
        judged.write(folder)
        record_files.seal_folder(folder)
        return judged

    def _rows(self, folder: Path, certificate: Certificate, prices: Mapping[str, VariantPrice]) -> list[VariantRow]:
        """A row a trial, those in float first."""
        trials = sorted(certificate.trials, key=lambda one: one.precision in QUANTISED)
        rows = [compression_rows.variant_row(folder, one, prices.get(one.backend)) for one in trials]
        exact = next(iter(prices.values()), None)
        if exact is not None:  # what the others are compared with is measured on the first
            rows[0] = replace(rows[0], metric=exact.metric, value=compression_rows.finite_or_none(exact.exact.value))
        costs = [one.cost(TYPICAL_IMAGES) for one in trials]
        fastest = min(cost for cost, row in zip(costs, rows, strict=True) if row.variant == FLOAT)
        here = "" if hardware.multiplies_bytes(hardware.processor_instructions()) else " (no 8-bit dot products here)"
        slower = f"slower here than in float{here}: `predict` does not take it by itself"
        return [
            replace(row, because=f"{row.because}; {slower}") if row.variant != FLOAT and cost > fastest else row
            for cost, row in zip(costs, rows, strict=True)
        ]


def _write_run_package(run: Path, folder: Path) -> None:
    """Write the package of a finished run, without a certificate."""
    model = model_files.load(run, "cpu")
    evidence = package.run_evidence(run, model, package.finished_plan(run))
    package_writing.write_package(model, evidence, run.name, folder)


def _write_changed(tables: Sequence[Table], path: Path) -> None:
    """`changed.csv`: what changed most first, whatever the variant."""
    columns = ["case", "label", "before", "after", "difference", "variant"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    csv_text.write_table(table.loc[order, columns], path)


def _with_accuracy(trial: BackendTrial, price: VariantPrice | None) -> BackendTrial:
    """The trial with the verdict on what it loses."""
    if price is None:
        return trial
    return replace(trial, accuracy=price.passed, because=f"{price.because}; {trial.because}")


def _not_computed(backend: str, error: Exception) -> HilumError:
    problem = f"cannot be computed by {backend} ({errors.describe_fault(error)})"
    return ResourceError(problem, backend, "Use another variant")
