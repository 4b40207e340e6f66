"""What was accepted of a node's models: which package, and for which groups of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.errors import HilumError, IntegrityError, UsageError
from hilum.monitoring import acceptance_plan
from hilum.monitoring.acceptance_plan import AcceptanceRecord
from hilum.runtime import record_files
from hilum.service.configuration import ModelSection, NodeSettings
from hilum.service.exchange.fhir_covariates import CovariateValue
from hilum.service.records.job_queue import Job
from hilum.values.plain_values import PlainValue

MANIFEST = "manifest.json"
# Columns of a site's cases that the header of an image states, by the DICOM keyword.
KEYWORDS: Mapping[str, str] = {
    "station": "StationName",
    "manufacturer": "Manufacturer",
    "scanner": "ManufacturerModelName",
    "software": "SoftwareVersions",
    "sex": "PatientSex",
}


@dataclass(eq=False)
class Acceptances:
    """The acceptances of the models of a node, each read once.

    packages: the folder of a model's package, by its hash; None for that of the settings
    """

    settings: NodeSettings
    packages: Callable[[str, str | None], Path | None]
    known: dict[tuple[str, str | None], tuple[AcceptanceRecord | None, str]] = field(default_factory=dict)

    def reason_against(
        self, job: Job, header: Mapping[str, PlainValue], covariates: Mapping[str, CovariateValue]
    ) -> str:
        """Why a job is not answered: its package was not accepted, or not for its group; empty where it may be.

        header: attributes of its images by their keywords; covariates: that the settings have of its patient
        """
        section = self.settings.models.get(job.model)
        if section is None or section.acceptance is None:
            return ""
        key = (job.model, job.model_hash)
        if key not in self.known:
            self.known[key] = self._read(section, self.packages(*key))
        record, why = self.known[key]
        if record is None:
            return f"the package was not accepted here: {why}" if section.require_acceptance else ""
        stated: dict[str, Any] = {name: header[keyword] for name, keyword in KEYWORDS.items() if header.get(keyword)}
        stated |= {name: one.value for name, one in covariates.items()}
        group = acceptance_plan.group_not_accepted(record, stated)
        return f"the model was not accepted here for {group}" if group else ""

    def _read(self, section: ModelSection, package: Path | None) -> tuple[AcceptanceRecord | None, str]:
        try:
            return accepted_record(section, package), ""
        except HilumError as error:
            return None, error.problem


def accepted_record(section: ModelSection, package: Path | None = None) -> AcceptanceRecord:
    """The record of the acceptance of a package, by default that of the settings.

    Raises UsageError for a model that is no package, or was not accepted, IntegrityError for a record that was changed.
    """
    assert section.acceptance is not None  # noqa: S101 - asked where there is one
    with record_files.unpack(package or section.path) as folder:
        if not (folder / MANIFEST).is_file():
            raise UsageError("is no package", str(section.path), "Pack the run: hilum package RUN")
        return acceptance_plan.read_acceptance(section.acceptance, record_files.file_digest(folder / MANIFEST))


def check_required_acceptances(settings: NodeSettings) -> None:
    """UsageError with the place in the settings for a model that needs an acceptance and has none that accepts it.

    And for a condition by a column that the node knows of no job.
    """
    for name, section in settings.models.items():
        if section.acceptance is None:
            continue
        with settings.locate_errors("models", name, "acceptance"):
            try:
                record = accepted_record(section)
            except (UsageError, IntegrityError):
                if section.require_acceptance:
                    raise
                continue
            columns = {part.partition(":")[0] for one in record.get("conditions", {}) for part in one.split("*")}
            if unknown := sorted(columns - {*KEYWORDS, *section.covariates}):
                problem = f"it accepts the model by {unknown[0]}, which the node knows of no job"
                raise UsageError(problem, str(section.acceptance), f"Add {unknown[0]} to the covariates of the model")
