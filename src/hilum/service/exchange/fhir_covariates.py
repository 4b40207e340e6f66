"""Covariates of a patient that headers or a FHIR server have: of a server the newest values before the study, in the
unit of the training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, cast

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files.dicom.writing.sr import UCUM
from hilum.lazy import pydicom
from hilum.runtime import Context
from hilum.runtime.covariate_encoding import Category, FreeText, MonitoredCovariate, Number
from hilum.service.configuration import CovariateSource, FhirSection
from hilum.service.exchange.fhir_server import FhirServer, Resource
from hilum.service.records.job_queue import CovariateEntry
from hilum.values import PlainValue, covariate_values

# Observations that somebody stands for; others are preliminary, withdrawn or wrong.
STATUSES = ("final", "amended", "corrected")
# The unit in a column's name, as in "creatinine (mg/dL)".
UNIT = re.compile(r".*[\[(]\s*([^\[\]()]+?)\s*[\])]\s*")
LITRE = re.compile(r"(?<![A-Za-z])([munpdc]?)l(?![A-Za-z])")  # UCUM takes l and L
# Observations of a page; so many that are sorted are enough to know the newest.
PAGE = 200
UNITLESS = "1"
# What a header states is as good as its images.
DICOM = "DICOM"
REMEDY = "See what its log says, or give the values another way"

Column = Number | Category | MonitoredCovariate | FreeText


@dataclass(frozen=True)
class CovariateValue:
    """The value of a covariate, and where it comes from; None where the source has none.

    at: when it was observed, of readings when the last was
    is_text: whether it is free text, which no record repeats
    """

    value: Any
    source: str
    unit: str = ""
    at: str = ""
    is_text: bool = False

    @property
    def record(self) -> CovariateEntry:
        """Entry that the record of a job keeps of it."""
        shown = replace(self, value="a text") if self.is_text and self.value is not None else self
        fields = {name: one for name, one in asdict(shown).items() if name != "is_text"}
        return cast("CovariateEntry", {name: one for name, one in fields.items() if one != "" or name == "value"})


def refuse_covariate_sources(model: str, sources: Mapping[str, CovariateSource], context: Context) -> None:
    """Refuse sources of columns that a model does not have, or whose unit nobody states.

    Raises UsageError with what there is.
    """
    where = f"model {model!r}"
    for name, source in sources.items():
        column = _column(context, name)
        if column is None:
            taken = f"Its covariates are {', '.join(context.names)}" if context.names else "It takes none"
            raise UsageError(f"the model has no covariate {name!r}", where, taken)
        if source.keyword:
            _refuse_keyword(source.keyword, name, column, where)
            continue
        if isinstance(column, FreeText):
            remedy = f'Name an attribute of the images: {name} = "dicom:AdditionalPatientHistory"'
            raise UsageError(f"{name!r} is free text, and a server's Observations are none", where, remedy)
        if isinstance(column, Category):
            continue
        if covariate_unit(name, source) is None:
            remedy = f'Give it: {{ source = "{source.source}", unit = "mg/dL" }}'
            raise UsageError(f"nobody states the unit of {name!r} in the training", where, remedy)
        if isinstance(column, MonitoredCovariate) and column.unit != "s":
            problem = f"the times of {name!r} had no unit in the training, and those of a server cannot be put to them"
            raise UsageError(problem, where, "Give the readings of this model another way")


def _refuse_keyword(keyword: str, name: str, column: Column, where: str) -> None:
    if pydicom.datadict.tag_for_keyword(keyword) is None:
        raise UsageError(f"DICOM has no attribute {keyword!r}", where, "Give a keyword as PS3.6 spells it")
    if isinstance(column, MonitoredCovariate):
        raise UsageError(f"{name!r} is read over time, and a header has one value", where, "Give it another way")


def covariate_unit(name: str, source: CovariateSource) -> str | None:
    """The unit in which a covariate was trained: as the settings state it, else as the column's name does."""
    named = UNIT.fullmatch(name)
    return source.unit if source.unit is not None else named[1] if named else None


def _malformed_error(error: Exception) -> HilumError:
    problem = f"the FHIR server answers with an entry that is no FHIR ({type(error).__name__})"
    return DatasetError(problem, "covariates", REMEDY)


@errors.foreign_errors(_malformed_error)
def fetch_covariates(
    sources: Mapping[str, CovariateSource],
    context: Context,
    patient: Mapping[str, PlainValue],
    fhir: FhirSection | None,
    *,
    idle_s: float,
) -> dict[str, CovariateValue]:
    """The covariates of a patient that headers or a FHIR server have; what these lack is None, and the model says so.

    patient: attributes of the patient and the study, by their DICOM keywords
    Raises DatasetError for a patient, a time or a value that is not sure or was not asked for, or for another unit than
    the training's, FormatError for an answer that is no FHIR, PeerError where the server does not answer.
    """
    found = {name: _header_value(name, one, context, patient) for name, one in sources.items() if one.keyword}
    sources = {name: one for name, one in sources.items() if not one.keyword}
    if not sources or fhir is None:
        return found
    study = study_time(patient)
    server = FhirServer(fhir.base, idle_s)
    patient_id = _patient(server, cast("str", patient.get("PatientID") or ""), fhir.patient_system)
    courses = dict[str, list[_Observed]]()
    for name, source in sources.items():
        column = _column(context, name)
        if column is None:  # the settings were checked against another model
            raise DatasetError(f"the model has no covariate {name!r}", "covariates", "Check node.toml")
        code = source.source.partition("code=")[2]
        since = (
            study - timedelta(seconds=column.stop - column.start) if isinstance(column, MonitoredCovariate) else None
        )
        observed = _find_observations(server, patient_id, code, study, since) if patient_id else []
        if isinstance(column, MonitoredCovariate):
            courses[name] = observed
        elif not (newest := _newest(observed)):
            found[name] = CovariateValue(None, source.source)
        else:
            values = {_value(name, one, column, covariate_unit(name, source)) for one in newest}
            if len(values) > 1:
                problem = f"{name} has {len(values)} values of the same time"
                raise DatasetError(problem, "covariates", "Have the laboratory correct one of them")
            shown = _ucum_unit(covariate_unit(name, source))
            at = newest[0].at.isoformat()
            found[name] = CovariateValue(
                values.pop(), f"{fhir.base.rstrip('/')}/Observation/{newest[0].name}", shown, at
            )
    # As training tables count dates: from the patient's first row, whatever column it is of.
    first = min((one.at for own in courses.values() for one in own), default=study)
    for name, course in courses.items():
        found[name] = _course(name, course, first, sources[name], context)
    return found


def _header_value(
    name: str, source: CovariateSource, context: Context, patient: Mapping[str, PlainValue]
) -> CovariateValue:
    value = patient.get(source.keyword)
    value = " ".join(map(str, value)) if isinstance(value, list) else value
    return CovariateValue(value, f"{DICOM} {source.keyword}", is_text=isinstance(_column(context, name), FreeText))


def _course(
    name: str, observations: Sequence[_Observed], first: datetime, source: CovariateSource, context: Context
) -> CovariateValue:
    """Readings as pairs of a time in seconds and a number."""
    column, unit = _column(context, name), covariate_unit(name, source)
    assert column is not None  # noqa: S101 - it has been looked up
    rising = sorted(observations, key=lambda one: one.at)
    pairs = [((one.at - first).total_seconds(), _value(name, one, column, unit)) for one in rising]
    return CovariateValue(pairs or None, source.source, _ucum_unit(unit), rising[-1].at.isoformat() if rising else "")


def study_time(patient: Mapping[str, PlainValue]) -> datetime:
    """When a study began, at the earliest that its header allows; in the time zone that it states, else in ours.

    Raises DatasetError where it states no date.
    """
    date, time = str(patient.get("StudyDate") or ""), str(patient.get("StudyTime") or "").partition(".")[0]
    zone = str(patient.get("TimezoneOffsetFromUTC") or "")
    try:
        moment = datetime.strptime(f"{date}{time:0<6}", "%Y%m%d%H%M%S")
        offset = datetime.strptime(zone, "%z").tzinfo if zone else None
    except ValueError as error:
        problem = "its date and time (StudyDate, StudyTime) are not stated, so that no value is known to be before it"
        raise DatasetError(problem, "covariates", "Send the study with them") from error
    return moment.replace(tzinfo=offset) if offset is not None else moment.astimezone()


@dataclass(frozen=True)
class _Observed:
    """An Observation with a value, and the latest time that its own can mean."""

    name: str
    at: datetime
    resource: Resource


def _column(context: Context, name: str) -> Column | None:
    """The column of a covariate; of several networks the first one's."""
    columns = (one for one in context.columns if one.name == name)
    return next((one for one in columns if isinstance(one, Column)), None)


def _patient(server: FhirServer, stated: str | Sequence[str], system: str) -> str | None:
    """The server's id of the patient; None where it has none. DatasetError for several, or for another one."""
    if isinstance(stated, list):
        raise DatasetError(f"the study has {len(stated)} PatientIDs", "covariates", "Send it with one")
    number = str(stated).strip()
    if not number:
        raise DatasetError("the study has no PatientID, and covariates come by it", "covariates", "Send it with one")
    escaped = re.sub(r"([\\,$|])", r"\\\1", number)
    parameters = {"identifier": f"{system}|{escaped}" if system else escaped}
    found = set[str]()
    for resource in server.search("Patient", parameters):
        identifiers = resource.get("identifier") or ()
        of_system = [one["value"] for one in identifiers if not system or one.get("system", system) == system]
        if identifiers and number not in [str(one).strip() for one in of_system]:
            raise _ignored_error("a Patient of another identifier", "identifier")
        found.add(resource["id"])
    if len(found) > 1:
        problem = f"the FHIR server has {len(found)} patients of the study's PatientID"
        raise DatasetError(problem, "covariates", "Set fhir.patient_system to the address that it has for this one")
    return found.pop() if found else None


def _find_observations(
    server: FhirServer, patient: str, code: str, study: datetime, since: datetime | None
) -> list[_Observed]:
    """Observations with a value up to a study, from a time on; without that only as many as show the newest."""
    day = timedelta(days=1)  # servers differ in the time zone of a day
    dates = [f"le{(study + day).date().isoformat()}"]
    dates += [] if since is None else [f"ge{(since - day).date().isoformat()}"]
    observed = list[_Observed]()
    parameters = {"patient": patient, "code": code, "date": dates, "_sort": "-date", "_count": str(PAGE)}
    for number, resource in enumerate(server.search("Observation", parameters), start=1):
        _refuse_unasked(server, resource, patient, code)
        at, is_valid = _time(resource), resource.get("status") in STATUSES
        has_value = any(name.startswith("value") for name in resource)
        if at is not None and is_valid and has_value and (since is None or since <= at) and at <= study:
            observed.append(_Observed(str(resource.get("id")), at, resource))
        if since is None and number >= PAGE and observed and _is_sorted(observed):
            break
    return observed


def _refuse_unasked(server: FhirServer, resource: Resource, patient: str, code: str) -> None:
    """Refuse what nobody asked for: a FHIR server may leave out a parameter that it does not know, FHIR 3.2.1.1.2."""
    place = str((resource.get("subject") or {}).get("reference")).partition("/_history/")[0]
    if place.removeprefix(f"{server.base.rstrip('/')}/") != f"Patient/{patient}":
        raise _ignored_error("an Observation that is not of the patient", "patient")
    tokens = [re.sub(r"\\(.)", r"\1", one).rpartition("|") for one in re.split(r"(?<!\\),", code)]
    codings = [(one.get("system") or "", one.get("code")) for one in (resource.get("code") or {}).get("coding") or ()]
    fits = ((system, word) == one or (not bar and word == one[1]) for system, bar, word in tokens for one in codings)
    if not any(fits):
        raise _ignored_error("an Observation of another code", "code")


def _ignored_error(what: str, parameter: str) -> DatasetError:
    return DatasetError(f"the FHIR server answers with {what}: it ignores {parameter}=", "covariates", REMEDY)


def _is_sorted(observed: Sequence[_Observed]) -> bool:
    return all(one.at >= other.at for one, other in pairwise(observed))


def _newest(observed: Sequence[_Observed]) -> list[_Observed]:
    last = max((one.at for one in observed), default=None)
    return [one for one in observed if one.at == last]


def _time(resource: Resource) -> datetime | None:
    """When an Observation was made: of a day or a month its end, for it may have been then; None where it is unsaid."""
    period = resource.get("effectivePeriod") or {}
    times = (resource.get("effectiveDateTime"), resource.get("effectiveInstant"), period.get("end"))
    text = str(next(filter(None, times), None) or resource.get("issued") or "")
    with suppress(ValueError):
        if "T" in text:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        for form, length in (("%Y-%m-%d", 1), ("%Y-%m", 31), ("%Y", 366)):
            with suppress(ValueError):
                return datetime.strptime(text, form).astimezone() + timedelta(days=length)
    return None


def _value(name: str, observation: _Observed, column: Column, unit: str | None) -> Any:
    """The value of an Observation as the model takes it. DatasetError for another unit, a bound, or no such value."""
    resource = observation.resource
    if isinstance(column, Category):
        return _level(name, resource, column)
    quantity = resource.get("valueQuantity") or {}
    if "valueInteger" in resource:
        quantity = {"value": resource["valueInteger"], "code": UNITLESS}
    number = quantity.get("value")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise DatasetError(f"{name} is no number at the FHIR server", "covariates", "Check its code in node.toml")
    if quantity.get("comparator"):
        raise DatasetError(f"{name} is stated as a bound, not as a value", "covariates", "Give it another way")
    code = str(quantity.get("code") or quantity.get("unit") or UNITLESS)
    if _ucum_unit(code) != _ucum_unit(unit):
        problem = f"{name} is in {code}, and the model was trained in {unit}"
        raise DatasetError(problem, "covariates", "Give it in that unit; nothing is converted")
    return float(number)


def _ucum_unit(unit: str | None) -> str:
    """A unit in the letters of UCUM."""
    return LITRE.sub(r"\1L", UCUM.get(unit or UNITLESS, unit or UNITLESS))


def _level(name: str, resource: Resource, column: Category) -> str:
    """The level of a category that an Observation names by code, display or text; else its first word for it."""
    words = list(dict.fromkeys(_words(resource)))
    levels = list(dict.fromkeys(one for one in map(covariate_values.level_in, words) if one in column.levels))
    if len(levels) > 1:
        raise DatasetError(f"{name} names {len(levels)} levels of the model at once", "covariates", "Correct it")
    if not words:
        raise DatasetError(f"{name} has no word at the FHIR server", "covariates", "Check its code in node.toml")
    return levels[0] if levels else words[0]


def _words(resource: Resource) -> Iterator[str]:
    concept = resource.get("valueCodeableConcept") or {}
    words = [concept.get("text")]
    words += [one.get(key) for one in concept.get("coding") or () for key in ("display", "code")]
    words += [resource.get(kind) for kind in ("valueString", "valueBoolean", "valueInteger")]
    yield from (str(one) for one in words if one is not None and str(one).strip())
