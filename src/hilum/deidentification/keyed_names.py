"""New names for patients and UIDs, and the days by which dates move, all made by a key: RFC 2104, PS3.5 B.2.

The same key gives the same names, so that what is handed on in parts fits together; without it nobody finds the way
back. It is never the key by which this installation hides patients from its own records.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from hilum.errors import UsageError
from hilum.files.storage import hashing
from hilum.lazy import pydicom

VARIABLE = "HILUM_DEIDENTIFY_KEY"
DIGITS = 64
LETTERS, ALPHABET = 10, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_DAYS = 3650
DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")


@dataclass(frozen=True)
class KeyedNames:
    """Names that a key makes."""

    key: bytes

    @cached_property
    def id(self) -> str:
        """An identifier of the key, which says nothing of it."""
        return self._digest("key", "").hex()[:12]

    def uid(self, uid: str) -> str:
        """The UID that stands for another; those of the standard, PS3.6, stay."""
        if uid in pydicom.uid.UID_dictionary:
            return uid
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16])}"

    def patient_of_number(self, number: str, issuer: str) -> str:
        """The name of a patient by number and issuer."""
        return self._letters(f"{issuer.strip()}\0{number.strip()}")

    def patient_of_study(self, study: str) -> str:
        """The name of whoever a study is of, where it states no number."""
        return self._letters(f"study\0\0{study}")

    def days(self, patient: str) -> int:
        """Days by which all dates of a patient, by the new name, move back: 1 to 3650."""
        return 1 + int.from_bytes(self._digest("days", patient)[:8]) % MOST_DAYS

    def shift_date(self, text: str, patient: str) -> str | None:
        """A DA or a DT moved back, the time of day as it was; None where it names no day of the calendar."""
        match = DATE.match(text)
        if match is None:
            return None
        try:
            year, month, date = map(int, match.groups())
            day = datetime(year, month, date) - timedelta(self.days(patient))
        except (ValueError, OverflowError):
            return None
        return f"{day:%Y%m%d}".zfill(8) + text[match.end() :]

    def _letters(self, identity: str) -> str:
        number, letters = int.from_bytes(self._digest("patient", identity)[:16]), ""
        for _ in range(LETTERS):
            number, place = divmod(number, len(ALPHABET))
            letters += ALPHABET[place]
        return f"P-{letters}"

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{text}".encode(errors="surrogateescape"), hashlib.sha256)


def read_names() -> KeyedNames:
    """The names by the key of the environment. Raises UsageError without one, and for one that is none."""
    stated = os.environ.get(VARIABLE, "")
    remedy = f"Set {VARIABLE} to {DIGITS} hexadecimal digits, such as `openssl rand -hex 32` prints, and keep them"
    if not stated:
        raise UsageError("there is no key from which new names are made", VARIABLE, remedy)
    if len(stated) != DIGITS or not re.fullmatch(r"[0-9a-fA-F]+", stated):
        raise UsageError(
            f"the key has {len(stated)} characters, and is no {DIGITS} hexadecimal digits", VARIABLE, remedy
        )
    key = bytes.fromhex(stated)
    if hashing.is_own_key(key):
        problem = "the key is the one by which this installation hides patients from its own records"
        raise UsageError(problem, VARIABLE, remedy)
    return KeyedNames(key)
