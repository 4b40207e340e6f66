"""The time of a result, written as its source writes times: in the zone that the source states."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.tags import text

# Dates and times of the making, PS3.3 C.12.1, C.7.3.1, C.7.6.1 and C.17.2.
DATES = ("InstanceCreation", "Series", "Content")
ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # of UTC -1200 to +1400, PS3.3 C.12.1


def state_zone(made: Dataset, source: Path) -> None:
    """Give a result the time zone of its source, in which the date and time of the study are, and date it now in that.

    A result whose source states no zone states none, and has this machine's time.
    """
    zone = text(read_header(source).dataset, "TimezoneOffsetFromUTC")
    if ZONE.fullmatch(zone):
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


def _local(at: float, offset: str) -> datetime:
    """A moment in a zone such as +0130, else in this machine's."""
    if (parts := ZONE.fullmatch(offset)) is None:
        return datetime.fromtimestamp(at, UTC).astimezone()
    beyond = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return datetime.fromtimestamp(at, timezone(-beyond if parts[1] == "-" else beyond))
