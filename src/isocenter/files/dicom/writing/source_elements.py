"""Elements that a result repeats from its source: values letter for letter, the character sets and the time zone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.files.dicom.elements import Dataset as Elements
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.tags import text, words

# Sites write birth dates such as 17.03.1962, and sexes such as D or X. A PACS knows the patient by just these.
AS_STATED = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
UTF_8 = "ISO_IR 192"  # PS3.3 C.12.1.1.2
# Dates and times of the making, PS3.3 C.12.1, C.7.3.1, C.7.6.1 and C.17.2.
DATES = ("InstanceCreation", "Series", "Content", "StructureSet", "PresentationCreation")
ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # of UTC -1200 to +1400, PS3.3 C.12.1


def repeat_elements(made: Dataset, source: Path, names: Iterable[str]) -> None:
    """Give a result the character sets of its source, its `AS_STATED` values and its time zone.

    names: that the result adds
    highdicom must see none of these: it would parse them, and refuse odd values. `completed` has hidden them from it.
    """
    head = read_header(source)
    _state_character_sets(made, head.dataset, names)
    stated = head.library
    for keyword in AS_STATED:
        if keyword in stated:
            made[keyword] = stated[keyword]
    zone = text(head.dataset, "TimezoneOffsetFromUTC")
    if ZONE.fullmatch(zone):  # a result whose source states no zone states none, and has this machine's time
        made.TimezoneOffsetFromUTC = zone
        date_result(made, time.time())


def date_result(dataset: Dataset, at: float) -> None:
    """Set the dates and times of the making: `at` (s since 1970) in the object's own zone, else in this machine's."""
    moment = _local(at, str(dataset.get("TimezoneOffsetFromUTC") or ""))
    for name in DATES:
        if f"{name}Date" in dataset:
            setattr(dataset, f"{name}Date", moment.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", moment.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", [])[-1:]:  # the writer's own stands last
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")


def _state_character_sets(made: Dataset, source: Elements, names: Iterable[str]) -> None:
    """State the source's character sets, by which a PACS knows the patient's name, or UTF-8 for names beyond ASCII.

    highdicom refuses some that the standard allows, such as those of Japan and Korea.
    """
    own = words(source, "SpecificCharacterSet")
    if not all(name.isascii() for name in names):
        made.SpecificCharacterSet = UTF_8
    elif any(own):
        made.SpecificCharacterSet = own[0] if len(own) == 1 else list(own)


def _local(at: float, offset: str) -> datetime:
    """A moment in a zone such as +0130, else in this machine's."""
    if (parts := ZONE.fullmatch(offset)) is None:
        return datetime.fromtimestamp(at, UTC).astimezone()
    beyond = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return datetime.fromtimestamp(at, timezone(-beyond if parts[1] == "-" else beyond))
