"""A patient's own identifiers, as all files of the patient state them, and the search for them in any text.

The second net under the table of attributes: a name in a description, a number in a comment. Names of physicians and
addresses are searched for alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from hilum.files.storage import hashing

FEWEST_LETTERS, FEWEST_SIGNS = 3, 2  # of an alphabet; of scripts in which a name has two signs
FIRST_SIGN = "\u2e80"  # from here on lie the scripts of East Asia
LEAST_WITHIN = 5  # a shorter word counts only as a word of its own: Lee is not in "asleep"
LEAST_BYTES = 5  # of an identifier that is searched for in bytes of unknown meaning
# Numbers of an examination that are often as short as those of slices.
LEAST_NUMBER = 5
NAMES = frozenset({"PN"})
NUMBERS = frozenset((
    "PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "MedicalRecordLocator",
    "PatientTelephoneNumbers", "InsurancePlanIdentification", "PersonTelephoneNumbers",
    "ReferringPhysicianTelephoneNumbers", "PatientTelecomInformation",
))  # fmt: skip
SHORT_NUMBERS = frozenset((
    "StudyID", "RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID",
    "ServiceEpisodeID", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
))  # fmt: skip
ADDRESSES = frozenset(("PatientAddress", "PersonAddress", "ReferringPhysicianAddress"))
OF_INSTITUTIONS = frozenset(("InstitutionAddress", "InstitutionName"))
BIRTH_DATES = frozenset({"PatientBirthDate", "PatientBirthDateInAlternativeCalendar"})
# How people write a day.
DAY_FORMS = (
    "%Y%m%d", "%Y-%m-%d", "%Y.%m.%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%m/%d/%Y", "%m-%d-%Y",
    "%d%m%Y", "%m%d%Y", "%d.%m.%y",
)  # fmt: skip
LONG_DAY_FORMS = ("%d %b %Y", "%d-%b-%Y", "%d%b%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")
# Words of an address, and before a name, that are nobody's.
COMMON = frozenset((
    "street", "str", "strasse", "straße", "road", "avenue", "lane", "drive", "house", "city", "hospital",
    "clinic", "university", "center", "centre", "main", "north", "south", "east", "west", "apt", "floor",
    "the", "and", "von", "van", "der", "den", "del", "prof", "doc", "med", "mrs", "frau", "herr",
))  # fmt: skip


@dataclass(eq=False)
class PatientIdentifiers:
    """The identifiers of one patient.

    words: as they are searched for, in the form of `normalise`
    texts: as they are written, for a search in bytes
    """

    words: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    _patterns: tuple[re.Pattern[str], re.Pattern[bytes]] | None = None

    def add(self, keyword: str, vr: str, values: Iterable[str], *, institutions: bool = True) -> None:
        """Take what an attribute says of the patient, if it is one of those that do. institutions: theirs too"""
        for value in filter(None, (one.strip(" \0") for one in values)):
            self._add(list(_identifiers(keyword, vr, value, institutions=institutions)))

    def _add(self, texts: Sequence[str]) -> None:
        for text in texts:
            word = normalise(text)
            if is_long_enough(word) and not hashing.is_nobody(text) and word not in COMMON and word not in self.words:
                self.words.add(word)
                self.texts.add(text)
                self._patterns = None

    def are_in(self, text: str) -> bool:
        """Whether a text holds one of them."""
        return bool(self.words) and self._searches[0].search(normalise(text)) is not None

    def are_in_bytes(self, content: bytes, encodings: Sequence[str] = ()) -> bool:
        """Whether bytes hold one of them in UTF-8, Latin-1, UTF-16 or another encoding."""
        if not self.words:
            return False
        if self._searches[1].search(content) is not None:
            return True
        others = {_encode(text, one) for one in encodings for text in self.texts}
        return any(len(one) >= LEAST_BYTES and one in content for one in others)

    @property
    def _searches(self) -> tuple[re.Pattern[str], re.Pattern[bytes]]:
        if self._patterns is None:
            longest_first = sorted(self.words, key=len, reverse=True)
            written = {
                _encode(form, encoding)
                for text in self.texts
                for form in (text, text.upper(), text.lower(), text.title())
                for encoding in ("utf-8", "latin-1", "utf-16-le")
            }
            in_bytes = sorted(one for one in written if len(one) >= LEAST_BYTES)
            self._patterns = (
                re.compile("|".join(map(_search_of, longest_first))),
                re.compile(b"|".join(map(re.escape, in_bytes)) or rb"(?!)"),
            )
        return self._patterns


def normalise(text: str) -> str:
    """A text without case and accents, by which spellings of one name are compared."""
    if text.isascii():
        return text.casefold()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(one for one in parts if not unicodedata.combining(one)))


def is_long_enough(word: str) -> bool:
    """Whether a word says who somebody is, and is not a syllable of many."""
    return len(word) >= (FEWEST_SIGNS if any(one >= FIRST_SIGN for one in word) else FEWEST_LETTERS)


def _search_of(word: str) -> str:
    escaped = re.escape(word)
    if len(word) >= LEAST_WITHIN or any(one >= FIRST_SIGN for one in word):
        return escaped
    kind = r"\d" if word.isdecimal() else r"[^\W\d_]" if word.isalpha() else r"[^\W_]"
    return f"(?<!{kind}){escaped}(?!{kind})"


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding, errors="ignore")


def _identifiers(keyword: str, vr: str, value: str, *, institutions: bool) -> Iterator[str]:
    if vr in NAMES:
        yield from _name_parts(value)
    elif keyword in NUMBERS or (keyword in SHORT_NUMBERS and len(value) >= LEAST_NUMBER):
        yield from _number_forms(value)
    elif keyword in BIRTH_DATES:
        yield from _day_forms(value)
    elif keyword in ADDRESSES or (institutions and keyword in OF_INSTITUTIONS):
        yield value
        if keyword != "InstitutionName":
            yield from (
                word for word in re.split(r"[\W_]+", value) if not word.isdecimal() or len(word) >= LEAST_NUMBER
            )


def _name_parts(name: str) -> Iterator[str]:
    """The parts of a name, and those of each group joined, as families and file names write them. PS3.5 6.2.1"""
    for group in name.split("="):
        parts = [part for part in re.split(r"[\W\d_]+", group) if part]
        yield from parts
        yield from re.findall(r"\d+", group)
        if len(parts) > 1:
            for first, second in ((parts[0], parts[1]), (parts[1], parts[0])):
                if len(first + second) >= LEAST_WITHIN or (first + second) >= FIRST_SIGN:
                    yield first + second


def _number_forms(number: str) -> Iterator[str]:
    yield number
    bare = re.sub(r"[\W_]+", "", number)
    yield bare
    if bare.isdecimal() and len(bare.lstrip("0")) >= LEAST_NUMBER:
        yield bare.lstrip("0")


def _day_forms(value: str) -> Iterator[str]:
    yield value
    with suppress(ValueError):
        day = datetime.strptime(re.sub(r"\D", "", value)[:8], "%Y%m%d")
        yield from (day.strftime(form) for form in (*DAY_FORMS, *LONG_DAY_FORMS))
