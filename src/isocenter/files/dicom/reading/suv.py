"""PET activity to standardised uptake value by body weight.

The recipe is QIBA's vendor-neutral one (FDG-PET/CT profile, appendix G; Kinahan and Fletcher, Semin Ultrasound CT MR
2010, doi:10.1053/j.sult.2010.10.001): only what the attributes state is used, and what is missing is named.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from isocenter.files.dicom.tags import item, lenient, seconds, text, words

DAY = 86400.0
UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "PROPCNTS": "proportional to counts", "GML": "g/ml", "CPS": "counts/s"}
PHILIPS = "Philips PET Private Group"


def pet_unit(dataset: Dataset) -> str:
    """The unit of the values after rescaling, PS3.3 C.8.9.1.1.3; g/ml by body weight is SUVbw already."""
    stated = text(dataset, "Units") or text(dataset, "RescaleType")
    if stated == "GML" and text(dataset, "SUVType") in ("", "BW"):
        return "SUVbw"
    return UNITS.get(stated, stated)


def suv_bw_factor(datasets: Sequence[Dataset]) -> float | str:
    """Factor from rescaled values to SUVbw (g/ml) for all files of one series, or why it is not known.

    Files of one series must agree; where the series was made after the scan, its start is not known and no factor
    is given.
    """
    factors = [_factor(dataset) for dataset in datasets]
    reason = next((factor for factor in factors if isinstance(factor, str)), None)
    if reason is not None:
        return reason
    known = [factor for factor in factors if isinstance(factor, float)]
    if max(known) - min(known) > 1e-6 * max(known):
        return "the files of the series state different doses, weights or times"
    return known[0]


def _factor(dataset: Dataset) -> float | str:
    units = text(dataset, "Units")
    if units == "GML":
        return 1.0 if pet_unit(dataset) == "SUVbw" else f"SUVType is {text(dataset, 'SUVType')}"
    corrections = set(words(dataset, "CorrectedImage"))
    if not {"ATTN", "DECY"} <= corrections:
        missing = " and ".join(sorted({"ATTN", "DECY"} - corrections))
        return f"CorrectedImage (0028,0051) does not name {missing}"
    if units == "CNTS":
        return _philips(dataset)
    if units != "BQML":
        return f"Units (0054,1001) is {units or 'missing'}"
    return _of_activity(dataset)


def _philips(dataset: Dataset) -> float | str:
    """Counts to SUVbw by the maker's own factor (7053,xx00), else to Bq/ml by (7053,xx09) and on from there."""
    direct, activity = (_private(dataset, element) for element in (0x00, 0x09))
    if direct:
        return direct
    if not activity:
        return "values are counts, and the Philips factors (7053,1000) and (7053,1009) are missing"
    rest = _of_activity(dataset)
    return rest if isinstance(rest, str) else activity * rest


def _private(dataset: Dataset, element: int) -> float | None:
    try:
        return float(dataset.private_block(0x7053, PHILIPS)[element].value)
    except (KeyError, ValueError, TypeError):
        return None


def _of_activity(dataset: Dataset) -> float | str:
    weight = lenient(dataset, "PatientWeight")
    if weight is None or weight <= 0:
        return "PatientWeight (0010,1030) is missing"
    drug = item(dataset, "RadiopharmaceuticalInformationSequence")
    dose = None if drug is None else lenient(drug, "RadionuclideTotalDose")
    if drug is None or dose is None or dose <= 0:
        return "RadionuclideTotalDose (0018,1074) is missing"
    if dose < 1e5:  # a dose is tens of millions of Bq; tens to hundreds is a file that writes MBq
        return f"RadionuclideTotalDose (0018,1074) of {dose:g} Bq cannot be a dose"
    correction = text(dataset, "DecayCorrection")
    if correction == "ADMIN":
        return weight * 1000 / dose
    if correction != "START":
        return f"DecayCorrection (0054,1102) is {correction or 'missing'}"
    half_life, elapsed = lenient(drug, "RadionuclideHalfLife"), _elapsed(dataset, drug)
    if half_life is None or half_life <= 0:
        return "RadionuclideHalfLife (0018,1075) is missing"
    return elapsed if isinstance(elapsed, str) else weight * 1000 / (dose * 2 ** (-elapsed / half_life))


def _elapsed(dataset: Dataset, drug: Dataset) -> float | str:
    """s from injection to the time to which decay was corrected: the start of the series."""
    start = _moment(dataset, "Series")
    taken = _moment(dataset, "Acquisition")
    if start is None or taken is None:
        return "the dates or times of series and acquisition are missing"
    if start > taken:
        return "the series is later than its acquisition, so the scan's start is not known"
    stated = seconds(text(drug, "RadiopharmaceuticalStartDateTime"))
    if stated is not None and stated >= DAY:
        elapsed = start - stated
        return elapsed if elapsed >= 0 else "the injection is later than the scan"
    injected = seconds(text(drug, "RadiopharmaceuticalStartTime"))
    if injected is None:
        return "RadiopharmaceuticalStartTime (0018,1072) is missing"
    elapsed = (start - injected) % DAY  # its date is not stated: the same day, or the night between
    if elapsed > DAY / 2:
        return f"the injection would be {elapsed / 3600:.1f} h before the scan"
    return elapsed


def _moment(dataset: Dataset, kind: str) -> float | None:
    """Date and time of the series or the acquisition in s; None where one of them is missing."""
    date, time = text(dataset, f"{kind}Date"), text(dataset, f"{kind}Time")
    return seconds(date.replace(".", "") + time) if date and time else None
