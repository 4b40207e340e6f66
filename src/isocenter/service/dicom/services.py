"""The service that a class belongs to, PS3.4 B.5 and PS3.6 A."""

from __future__ import annotations

VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_STANDARD = "1.2.840.10008."
_STORAGE = (
    f"{_STANDARD}5.1.4.1.1.",
    # Storage classes that stand among others: stored prints and hardcopies, deliveries of radiation, objects without a
    # patient.
    *(f"{_STANDARD}5.1.1.{n}" for n in ("27", "29", "30")),
    *(f"{_STANDARD}5.1.4.{n}" for n in ("34.7", "34.10", "38.1", "39.1", "43.1", "44.1", "45.1")),
)


def is_storage(sop_class: str) -> bool:
    """Whether a class is of objects: what the standard lists as such, and whatever is not of the standard."""
    return not sop_class.startswith(_STANDARD) or sop_class.startswith(_STORAGE[0]) or sop_class in _STORAGE
