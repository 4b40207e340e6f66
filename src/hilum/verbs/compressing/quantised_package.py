"""A package with quantised networks beside its own: files made once, and the record of how."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from hilum import errors
from hilum.errors import HilumError, ResourceError
from hilum.files.storage import atomic, structured_text
from hilum.networks import factory
from hilum.runtime import Model, model_assembly, model_files, record_files
from hilum.runtime.hardware import CPU
from hilum.runtime.model_schema import MODEL_SCHEMA
from hilum.runtime.package import backends, package_contents, quantising
from hilum.runtime.package.backend_certificate import CERTIFICATE, Computing
from hilum.runtime.package.backends import onnx
from hilum.runtime.package.package_contents import MADE, ONNX, PACKAGED, RECORD
from hilum.runtime.package.quantising import Judge, QuantisationFacts, Quantised, Window
from hilum.scoring import data_record
from hilum.values import Case, Dataset, PlainValue
from hilum.values.record_schema import RecordSchema
from hilum.verbs.compressing import variant_price
from hilum.verbs.compressing.case_roles import CaseRoles
from hilum.work_state import log

# In the folder of a variant: what was done, or the reason why nothing could be.
FACTS = "facts.json"
# Of a model's record: what was done to make it smaller, in order.
COMPRESSION: Final = "compression"
FACTS_SCHEMA = RecordSchema("hilum.compression.facts", QuantisationFacts)


def made_once(place: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `place` as an earlier command finished it, or else filled by `fill`: whole or absent."""
    if not place.is_dir():
        with atomic.write_whole(place) as partial_folder:
            partial_folder.mkdir()
            fill(partial_folder)
    return place


def read_on(folder: Path, backend: str, threads: int | None) -> Model:
    """The model of a package on a backend, be it certified or not."""
    record, computing = package_contents.package_record(folder), Computing(backends.find_backend(backend), CPU, "")
    return model_assembly.with_uncertainty(model_files.read_package_on(folder, record, computing, threads))


@dataclass(frozen=True, eq=False)
class Quantisation:
    """What quantising a package needs; each backend's files are made once.

    package: its folder; model: as torch computes it
    primary: the metric by which layers are judged
    loss:    the largest accepted in it
    """

    package: Path
    model: Model
    roles: CaseRoles
    primary: str | None
    loss: float
    seed: int

    def write(self, backend: str, folder: Path) -> None:
        """Write the files of a backend, or the reason why there are none, into an empty folder."""
        try:
            with errors.foreign_errors(partial(_library_error, backend)):
                quantised = self._quantise(backend, folder)
            content: QuantisationFacts = {"files": list(quantised.files), **quantised.facts}
        except HilumError as error:
            log.warning("%s: %s", backend, error)
            content = {"refused": f"{error.problem}. {error.remedy}"}
        record_files.write_json(folder / FACTS, FACTS_SCHEMA, content)

    def _quantise(self, backend: str, folder: Path) -> Quantised:
        self._refuse_unquantisable()
        source, windows = self.package / ONNX, self._windows
        if backend == "openvino-int8":
            judge = self._judge if self.roles.judging else None
            heads = onnx.output_heads(self.package)
            families = [factory.family_of(str(one["name"])) for one in self.model.networks.architectures]
            attends = any(one.attention for one in families)
            return quantising.quantise_openvino(
                source, windows, folder, attends=attends, judge=judge, loss=self.loss, heads=heads
            )
        return QUANTISERS[backend](source, windows, folder)

    @property
    def _windows(self) -> Sequence[Window]:
        return quantising.record_windows(self.model, self.roles.ranges, seed=self.seed)

    @property
    def _judge(self) -> Judge:
        """The primary metric of the judging cases with another network in the model."""

        def judge(run: Any) -> float:
            """Higher is better."""
            model = replace(self.model.with_run(run), parts=replace(self.model.parts, guard=None))
            return variant_price.mean_primary(model, self.roles.judging, self.primary, seed=self.seed)

        return judge

    def _refuse_unquantisable(self) -> None:
        """ResourceError for a model whose networks are no single ONNX file."""
        where, remedy = str(self.package), "Compress its stages or members by themselves"
        if self.model.first is not None or self.model.members:
            raise ResourceError("cascades, and members with grids of their own, are not quantised", where, remedy)
        onnx.onnx_files(package_contents.package_record(self.package))


def _library_error(backend: str, error: Exception) -> HilumError:
    problem = f"the network could not be quantised ({errors.describe_fault(error)})"
    return ResourceError(problem, backend, "Use the model as it is")


# The backends that each method makes.
BACKENDS_OF: Mapping[str, tuple[str, ...]] = {"int8": ("openvino-int8", "onnx-int8"), "int4": ("onnx-int4",)}
QUANTISERS: Mapping[str, Callable[[Path, Sequence[Window], Path], Quantised]] = {
    "onnx-int8": quantising.quantise_onnx,
    "onnx-int4": quantising.quantise_onnx_weights,
}


def facts_of(folder: Path) -> QuantisationFacts:
    """What was done for a variant, or under "refused" why nothing could be."""
    content: QuantisationFacts = structured_text.load_json(folder / FACTS)
    facts = {key: value for key, value in content.items() if key not in ("schema", "version")}
    return cast("QuantisationFacts", facts)


def assemble(base: Path, made: Mapping[str, Path], samples: Sequence[Case], seed: int, folder: Path) -> None:
    """Write a package and the quantised networks beside it into an empty folder, and seal it.

    made:    {backend: folder with its files}; those that were refused stay out
    samples: cases that gave the ranges, of which only hashes are kept
    """
    shutil.copytree(base, folder, dirs_exist_ok=True)
    record, entries = package_contents.package_record(folder), list[Mapping[str, PlainValue]]()
    known = {backend: facts for backend, place in made.items() if "refused" not in (facts := facts_of(place))}
    hashes = sorted(set[str]().union(*data_record.hashes_by_case(Dataset(tuple(samples))).values()))
    for backend, facts in known.items():
        for name in facts["files"]:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(made[backend] / Path(name).name, folder / name)
        entries.append(cast("Mapping[str, PlainValue]", {"backend": backend, **facts, "seed": seed, "samples": hashes}))
    before = [one for one in record["record"].get(COMPRESSION, []) if one.get("backend") not in known]
    record["record"][COMPRESSION] = [*before, *entries]
    record[MADE] = {**(record.get(MADE) or {}), **{name: list(facts["files"]) for name, facts in known.items()}}
    record_files.write_json(folder / PACKAGED / RECORD, MODEL_SCHEMA, record)
    (folder / PACKAGED / CERTIFICATE).unlink(missing_ok=True)  # it speaks of the package without them
    record_files.seal_folder(folder)
