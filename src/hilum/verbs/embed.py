"""`embed`: what the network of a model sees in each image, as a table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from hilum import errors, keywords
from hilum.errors import HilumError, UsageError
from hilum.lazy import pandas as pd
from hilum.options.models import EmbedOptions
from hilum.prediction import predictors
from hilum.reading import input_cases, verb_results
from hilum.report import InNotebook, progress_tracking
from hilum.runtime import Model, predicted_memory, record_files
from hilum.runtime.hardware import AUTO
from hilum.runtime.package.backend_certificate import PLAIN
from hilum.values import Case, Problem
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import FailedCase, RecordHead, RecordSchema
from hilum.values.table_cells import TableRow
from hilum.work_state import log

TABLE, RECORD = "embeddings.parquet", "embeddings.json"


class EmbeddingsRecord(RecordHead):
    """How many cases have features, without the numbers: those are in the table."""

    embedded: int
    features: int
    failed: list[FailedCase]
    model: Mapping[str, PlainValue]
    out: str | None


EMBEDDINGS_SCHEMA = RecordSchema("hilum.embeddings", EmbeddingsRecord)


@dataclass(frozen=True, eq=False)
class EmbeddingResult(InNotebook):
    """The pooled features of images, what failed, and where the files lie.

    table:    a row a case: case, patient, image, then `e0`, `e1`, ...: one number a feature (float32)
    problems: errors are cases without features, warnings what was left out
    """

    table: pd.DataFrame
    problems: Sequence[Problem]
    model: Mapping[str, PlainValue]
    out: Path | None = None

    @property
    def failures(self) -> list[Problem]:
        """The problems that each stand for a case without features."""
        return verb_results.failures_among(self.problems)

    @property
    def features(self) -> int:
        """The number of features of an image."""
        return sum(name[1:].isdecimal() for name in self.table.columns)

    def as_record(self) -> EmbeddingsRecord:
        """The record for `--json`, without the numbers: those are in the table."""
        failed = verb_results.failed_rows(self.failures)
        return EMBEDDINGS_SCHEMA.record_of(self, embedded=len(self.table), failed=failed)

    def __repr__(self) -> str:
        lines = [*filter(None, [str(self.model.get("unfinished_training") or "")])]
        cases = errors.count_phrase(len(self.table), "case")
        lines += [f"{cases} with {self.features} features each, {len(self.failures)} failed"]
        lines += [f"{problem.severity}: {problem.what}. {problem.remedy}".strip() for problem in self.problems]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@keywords.takes(EmbedOptions)
def embed(options: EmbedOptions) -> EmbeddingResult:
    """The features of the network's deepest map for every input, each the mean over the image.

    Of a model of several networks they are those of the first: features of different networks cannot be compared.
    out:     a folder for `embeddings.parquet` and `embeddings.json`
    A case that fails is reported and the rest goes on; DatasetError where every one fails. After Ctrl-C `out` holds the
    cases that were done. Raises UsageError for a model whose network gives no such features.
    """
    reading = options.reading
    inputs = keywords.as_tuple(options.inputs)
    if not inputs:
        raise UsageError("nothing to embed", "embed", "Give files or folders after the model")
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite, (TABLE, RECORD))
    loaded = _load_model(options)
    # Without a gate nothing asks a network for its features before it is wrapped.
    loaded = predicted_memory.with_smaller_batches(replace(loaded, networks=loaded.networks.watch()))
    loaded = replace(loaded, request=replace(loaded.request, allow_large=reading.allow_large))
    opened, problems = input_cases.open_inputs(inputs, reading, loaded)
    cases, notes = input_cases.with_given_covariates(opened, options.covariates, loaded)
    problems, rows = [*problems, *notes], list[TableRow]()
    stopped: KeyboardInterrupt | None = None
    try:
        with progress_tracking.track_progress("embedding") as tracker:
            for case in tracker.over(cases):
                try:
                    rows.append(_row(loaded, case))
                except HilumError as error:
                    if isinstance(error, UsageError):  # of the model, so that no other case fares better
                        raise
                    problems.append(Problem.of_case(case.id, error))
    except KeyboardInterrupt as stop:
        if not rows or options.out is None:
            raise
        stopped = stop  # what is done is kept
    if not rows:
        raise verb_results.no_result_error("embed", "embedded", problems)
    weights = loaded.record.get("weights_sha256")
    computing = None if loaded.networks.computing is None else asdict(loaded.networks.computing)
    used = {"sha256": loaded.sha256, "weights_sha256": weights, "computing": computing}
    used["unfinished_training"] = loaded.unfinished_training
    result = EmbeddingResult(pd.DataFrame(rows), problems, used)
    if options.out is None:
        return result
    result = replace(result, out=Path(options.out))
    with verb_results.result_folder(Path(options.out), options.overwrite, (TABLE, RECORD)) as folder:
        result.table.to_parquet(folder / TABLE, index=False)
        record_files.write_json(folder / RECORD, EMBEDDINGS_SCHEMA, result.as_record())
    if stopped is not None:
        log.warning("%s embedded before the stop: %s", errors.count_phrase(len(rows), "case"), options.out)
        raise stopped
    return result


def _load_model(options: EmbedOptions) -> Model:
    """The model; a package without a gate by torch, where the person leaves the backend open and torch is there.

    The other backends compute the outputs of a file, which are features where a gate needs them alone.
    """

    def load(backend: str) -> Model:
        return predictors.load_model(
            options.model, options.device, fold=options.fold, threads=options.threads, backend=backend
        )

    loaded = load(options.backend)
    has_features = loaded.guard is not None and loaded.guard.features is not None
    is_package = not isinstance(options.model, Model) and loaded.networks.computing is not None
    if not is_package or has_features or options.backend != AUTO or find_spec("torch") is None:
        return loaded
    return load(PLAIN)


def _row(model: Model, case: Case) -> TableRow:
    """The row of a case; UsageError where the network gives no features."""
    place, numbers = str(case.files[0]) if case.files else "", model.pooled_features(case)
    return {"case": case.id, "patient": case.patient, "image": place, **{f"e{n}": x for n, x in enumerate(numbers)}}
