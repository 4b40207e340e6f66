"""PET activity to standardised uptake value by body weight.

The recipe is QIBA's vendor-neutral one (FDG-PET/CT profile, appendix G; Kinahan and Fletcher, Semin Ultrasound CT MR
2010, doi:10.1053/j.sult.2010.10.001): only what the attributes state is used, and what is missing is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import private_elements
from hilum.files.dicom.reading.private_elements import ACTIVITY_FACTOR, PET_FACTOR
from hilum.values import Image

DAY = 86400.0
SUV_BW = "SUVbw"
UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "PROPCNTS": "proportional to counts", "GML": "g/ml", "CPS": "counts/s"}
BY_WEIGHT = ("", "BW")  # SUV Type, PS3.3 C.8.9.1
MOST_DECAYED = DAY / 2  # an injection is not longer before a scan, except of nuclides that live for days
# After five of them a scan is late, after ten nothing is left to see; zirconium-89 is scanned after two, a week.
LATEST_HALF_LIVES, MOST_HALF_LIVES = 5, 10
WEIGHTS = (0.01, 400.0)  # kg, from mice on; larger ones are g
# m; a larger one is cm.
HEIGHTS = (0.3, 2.6)
# {sex: constant and slope over the body mass index} of the divisor of lean body mass.
LEAN = {"M": (6680.0, 216.0), "F": (8780.0, 244.0)}
# s of no nuclide of PET: rubidium-82 has 76, oxygen-15 122, but in minutes gallium-68 has 68 and fluorine-18 110.
NO_HALF_LIVES = ((0.0, 70.0), (100.0, 115.0))


def pet_unit(dataset: DicomDataset) -> str:
    """The unit of the values after rescaling, PS3.3 C.8.9.1.1.3; g/ml by body weight is SUVbw already."""
    unit = tags.text(dataset, "Units") or tags.text(dataset, "RescaleType")
    by_weight = unit == "GML" and tags.text(dataset, "SUVType") in BY_WEIGHT
    return SUV_BW if by_weight else UNITS.get(unit, unit)


class SuvUnknownError(Exception):
    """Why the factor to SUVbw is not known, as the end of a sentence."""


def suv_bw_factor(datasets: Sequence[DicomDataset]) -> float:
    """Factor from rescaled values to SUVbw (g/ml) for all files of one series.

    Raises SuvUnknownError where an attribute is missing, where files of the series disagree, and where the series was
    made after the scan, because the scan's start is then not known.
    """
    factors, reasons = list[float](), list[SuvUnknownError]()
    for dataset in datasets:
        try:
            factors.append(_factor(dataset))
        except SuvUnknownError as reason:
            reasons.append(reason)
    if reasons and factors:
        raise SuvUnknownError(f"{reasons[0]} in {len(reasons)} of {len(datasets)} slices")
    if reasons:
        raise reasons[0]
    if max(factors) - min(factors) > 1e-6 * max(factors):
        raise SuvUnknownError("the files of the series state different doses, weights or times")
    return factors[0]


def _factor(dataset: DicomDataset) -> float:
    units = tags.text(dataset, "Units")
    corrections = set(tags.words(dataset, "CorrectedImage"))
    if units == "GML":
        return _of_grams(dataset)
    if not {"ATTN", "DECY"} <= corrections:
        missing = " and ".join(sorted({"ATTN", "DECY"} - corrections))
        raise SuvUnknownError(f"CorrectedImage (0028,0051) does not name {missing}")
    if units not in FACTORS:
        raise SuvUnknownError(f"Units (0054,1001) is {units or 'missing'}")
    return FACTORS[units](dataset)


def _of_grams(dataset: DicomDataset) -> float:
    if pet_unit(dataset) != SUV_BW:
        raise SuvUnknownError(f"SUVType is {tags.text(dataset, 'SUVType')}")
    return 1.0


def _philips(dataset: DicomDataset) -> float:
    """Counts to SUVbw by the maker's own factor (7053,xx00), else to Bq/ml by (7053,xx09) and on from there."""
    direct = private_elements.private_numbers(dataset, *PET_FACTOR)
    activity = private_elements.private_numbers(dataset, *ACTIVITY_FACTOR)
    if any(direct):
        return direct[0]
    if not any(activity):
        raise SuvUnknownError("values are counts, and the Philips factors (7053,1000) and (7053,1009) are missing")
    return activity[0] * _of_activity(dataset)


def _of_activity(dataset: DicomDataset) -> float:
    weight = tags.lenient_number(dataset, "PatientWeight")
    if weight is None or weight <= 0:
        raise SuvUnknownError("PatientWeight (0010,1030) is missing")
    if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise SuvUnknownError(f"PatientWeight (0010,1030) of {weight:g} kg cannot be a weight")
    drug = tags.first_item(dataset, "RadiopharmaceuticalInformationSequence")
    dose = None if drug is None else tags.lenient_number(drug, "RadionuclideTotalDose")
    if drug is None or dose is None or dose <= 0:
        raise SuvUnknownError("RadionuclideTotalDose (0018,1074) is missing")
    if dose < 1e5:  # a dose is tens of millions of Bq; tens to hundreds is a file that writes MBq
        raise SuvUnknownError(f"RadionuclideTotalDose (0018,1074) of {dose:g} Bq cannot be a dose")
    return weight * 1000 / _remaining(dose, dataset, drug)


def _remaining(dose: float, dataset: DicomDataset, drug: DicomDataset) -> float:
    """Bq of the injected dose at the time to which decay was corrected."""
    correction = tags.text(dataset, "DecayCorrection")
    if correction == "ADMIN":
        return dose
    if correction != "START":
        raise SuvUnknownError(f"DecayCorrection (0054,1102) is {correction or 'missing'}")
    half_life = tags.lenient_number(drug, "RadionuclideHalfLife")
    if half_life is None or half_life <= 0:
        raise SuvUnknownError("RadionuclideHalfLife (0018,1075) is missing")
    if any(low < half_life < high for low, high in NO_HALF_LIVES):
        raise SuvUnknownError(f"RadionuclideHalfLife (0018,1075) of {half_life:g} s is that of no nuclide of PET")
    elapsed, most = _decay_time(dataset, drug, half_life)
    if elapsed > min(most, MOST_HALF_LIVES * half_life):
        raise SuvUnknownError(f"the injection would be {elapsed / 3600:.1f} h before the scan")
    return dose * 2 ** (-elapsed / half_life)


def _decay_time(dataset: DicomDataset, drug: DicomDataset, half_life: float) -> tuple[float, float]:
    """(s from injection to the time to which decay was corrected: the start of the series; s that may be at most)."""
    start = _moment(dataset, "Series")
    taken = _moment(dataset, "Acquisition")
    if start is None or taken is None:
        raise SuvUnknownError("the dates or times of series and acquisition are missing")
    if start > taken:
        raise SuvUnknownError("the series is later than its acquisition, so the scan's start is not known")
    beginning = tags.text(drug, "RadiopharmaceuticalStartDateTime")
    moment = tags.time_in_seconds(beginning)
    injected = tags.time_in_seconds(tags.text(drug, "RadiopharmaceuticalStartTime"))
    if moment is not None and moment >= DAY:
        elapsed = start - moment + _clocks_apart(dataset, beginning, injected)
        if elapsed < 0:
            raise SuvUnknownError("the injection is later than the scan")
        return elapsed, max(MOST_DECAYED, LATEST_HALF_LIVES * half_life)
    if injected is None:
        raise SuvUnknownError("RadiopharmaceuticalStartTime (0018,1072) is missing")
    return (start - injected) % DAY, MOST_DECAYED  # its date is not stated: the same day, or the night between


def _clocks_apart(dataset: DicomDataset, start: str, injected: float | None) -> float:
    """s by which the clock of the injection's date and time (`stated`) is ahead of that of the series. PS3.3 C.12.1.1.8

    injected: the same injection by the series' clock, where that is stated
    """
    theirs, ours = tags.utc_offset(start), tags.utc_offset(tags.text(dataset, "TimezoneOffsetFromUTC"))
    if theirs is None:  # a time without an offset is that of the series' zone
        return 0.0
    if ours is not None:
        return theirs - ours
    if injected is None or (tags.time_in_seconds(start) or 0) % DAY != injected:
        raise SuvUnknownError("the injection states its time zone, and TimezoneOffsetFromUTC (0008,0201) is missing")
    return 0.0


def _moment(dataset: DicomDataset, kind: str) -> float | None:
    """Date and time of the series or the acquisition in s; None where one of them is missing."""
    date, time = tags.text(dataset, f"{kind}Date"), tags.text(dataset, f"{kind}Time")
    return tags.time_in_seconds(date.replace(".", "") + time) if date and time else None


def lean_body_share(image: Image) -> float:
    """Lean body mass as a share of the whole: SUVbw times it is SUL.

    Janmahasatian et al., Clin Pharmacokinet 2005, doi:10.2165/00003088-200544100-00004, as QIBA's profile asks.
    Raises FormatError where its files do not state sex, height and weight.
    """
    if image.source is None or not image.source.is_dicom:
        raise FormatError("only DICOM states sex, height and weight", "SUL", "Give the DICOM series")
    head, where = header_reading.read_header(Path(image.source.paths[0])).dataset, image.source.paths[0]
    weight = tags.lenient_number(head, "PatientWeight")
    height = tags.lenient_number(head, "PatientSize")
    sex = tags.text(head, "PatientSex")
    remedy = "Complete the header: SUL needs it"
    if weight is None or not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise FormatError("PatientWeight (0010,1030) is no weight in kg", where, remedy)
    if height is None or not HEIGHTS[0] <= height <= HEIGHTS[1]:
        raise FormatError("PatientSize (0010,1020) is no height in m", where, remedy)
    if sex not in LEAN:
        raise FormatError("PatientSex (0010,0040) is neither M nor F", where, remedy)
    constant, slope = LEAN[sex]
    return 9270.0 / (constant + slope * weight / height**2)


# {units of the values: how their factor is found}
FACTORS = {"CNTS": _philips, "BQML": _of_activity}
