"""A DICOM object without identity: each element by the table, at any depth, then a search for what is left of it.

Elements that stay keep their bytes. PS3.15 annex E
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import NamedTuple

from hilum.deidentification.common_words import CommonWords
from hilum.deidentification.confidentiality_profile import DATES, EDITION, Action, ConfidentialityProfile
from hilum.deidentification.identifiers import PatientIdentifiers
from hilum.deidentification.keyed_names import KeyedNames
from hilum.files.dicom import character_sets, elements, tags
from hilum.files.dicom.reading import private_elements
from hilum.files.dicom.uids import IMPLICIT, MAKER
from hilum.lazy import pydicom

# Counted beside the actions of the table: what the search for the patient's own identifiers emptied.
IDENTIFYING = "identifying"
TEXTS = frozenset({"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
WRITTEN_NUMBERS = frozenset({"DS", "IS"})
BYTES = frozenset({"OB", "UN", "OW", "OD", "OF", "OL", "OV"})
LARGEST_SEARCHED = 1 << 20  # bytes of an element of unknown meaning; tables of numbers are longer
NUMBER_BYTES = re.compile(rb"[0-9+\-.eE \\\0]*")
UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)*", re.ASCII)
UID_BYTES = re.compile(rb"[0-9.\\\0 ]*")
CHARACTER_SET, PIXELS, OVERLAYS, CURVES = 0x00080005, 0x7FE0, 0x60, 0x50
# Pixels with the tables of their frames, PS3.6; coefficients and whatever else a file has in their group go.
OF_PIXELS = frozenset(PIXELS << 16 | element for element in (0x0001, 0x0002, 0x0003, 0x0008, 0x0009, 0x0010))
CONTENT, GRAPHICS, TEXT_OBJECTS, GRAPHIC_OBJECTS = 0x0040A730, 0x00700001, 0x00700008, 0x00700009
# Text, name, date, time and both of a content item, PS3.3 C.17.3.
STATEMENTS = (0x0040A160, 0x0040A123, 0x0040A121, 0x0040A122, 0x0040A120)
UNLISTED_OVERLAY_TEXT = (0x0022, 0x1500)  # description and label
# What each value representation holds in place of a value: fixed, and of its form.
DUMMY = "REMOVED"
MADE_UP = (TEXTS | BYTES | {"FL", "FD"}) - {"CS"}  # of a sequence of which a dummy is made
DUMMIES: Mapping[str, str | bytes | int] = {
    "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000", "UR": "urn:removed", "IS": "0", "DS": "0",
    **dict.fromkeys(BYTES, bytes(2)), **dict.fromkeys(("FD", "FL", "SL", "SS", "UL", "US", "SV", "UV"), 0),
}  # fmt: skip
LONGEST_METHOD = 64
CODE_WORDS = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
# Texts without which no object is whole that has them (type 1 and 1C of PS3.3).
NEVER_EMPTY = frozenset((
    "AlgorithmName", "AlgorithmVersion", "CodeMeaning", "CodeValue", "CodingSchemeDesignator", "ContentLabel",
    "FrameType", "ImageType", "LongCodeValue", "Manufacturer", "ManufacturerModelName", "SegmentAlgorithmName",
    "SegmentLabel", "SoftwareVersions", "TextValue", "UniversalEntityID",
))  # fmt: skip
TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?|\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
DATE_TIME = re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?|\d{4}\.\d{2}\.\d{2}")
OFFSET = re.compile(r"[+-]\d{4}")


class Surroundings(NamedTuple):
    """Where an element stands: the encodings of its text, and whether in content that is kept or made a dummy."""

    encodings: Sequence[str]
    is_content: bool = False
    is_dummy: bool = False
    is_cleaned: bool = False


@dataclass(frozen=True)
class CleaningRules:
    """What holds for all objects of an input."""

    profile: ConfidentialityProfile
    names: KeyedNames
    words: CommonWords


@dataclass(eq=False)
class ObjectCleaner:
    """Cleans one object of a patient, by the new name, and counts what it did.

    keeps_overlay: whether the bitmap of an overlay group holds no text; asked with `clean-graphics` only
    """

    rules: CleaningRules
    patient: str
    identifiers: PatientIdentifiers
    keeps_overlay: Callable[[int], bool] = lambda group: False
    counts: Counter[str] = field(default_factory=Counter)
    is_explicit: bool = True

    def clean(self, dataset: pydicom.Dataset) -> None:
        """Take the identity out of a whole object, and state that and how it was done. PS3.15 E.1.1"""
        self.is_explicit = dataset.file_meta.TransferSyntaxUID != IMPLICIT
        self._clean_items([dataset], Surroundings(encodings_of(dataset)), is_top=True)
        dataset.PatientID = dataset.PatientName = self.patient
        dataset.PatientIdentityRemoved = "YES"
        methods = (f"{MAKER} {metadata.version('hilum')}", f"PS3.15 Table E.1-1, {EDITION}")
        dataset.DeidentificationMethod = [one[:LONGEST_METHOD] for one in methods]
        dataset.DeidentificationMethodCodeSequence = [tags.code_item("DCM", *one) for one in self.rules.profile.codes]
        dataset.LongitudinalTemporalInformationModified = self.rules.profile.temporal_information
        self._write_meta(dataset)

    def _write_meta(self, dataset: pydicom.Dataset) -> None:
        """File meta information of ours: that of the source names who sent it to whom, and may name more."""
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta, dataset.preamble = meta, bytes(128)

    def _clean_items(self, items: Sequence[pydicom.Dataset], around: Surroundings, *, is_top: bool = False) -> None:
        for item in items:
            own = around._replace(encodings=encodings_of(item)) if CHARACTER_SET in item else around
            safe = self._safe_private(item)
            for tag in list(item.keys()):
                if tag in safe or (tag in OF_PIXELS and is_top):
                    self.counts[Action.KEEP.value] += 1
                elif tag >> 16 < 8 or tag >> 16 == PIXELS or tag & 0xFFFF == 0 or not _is_known(tag):
                    self._remove(item, tag)
                else:
                    self._clean_element(item, tag, own)
                if tag in item and self.is_explicit:
                    self._state_representation(item, tag)

    def _state_representation(self, item: pydicom.Dataset, tag: int) -> None:
        """Give an element its value representation where the file states none: some mix both ways of writing."""
        if item.get_item(tag).VR is None:
            try:
                item[tag]
            except tags.pydicom_errors():
                self._remove(item, tag)

    def _safe_private(self, item: pydicom.Dataset) -> frozenset[int]:
        """Private elements that stay, with the elements that say who made them: numbers, and no one's."""
        if "retain-safe-private" not in self.rules.profile:
            return frozenset()
        safe = set[int]()
        for claim in elements.creator_tags(item.keys()):
            creator = str(item[claim].value).strip()
            for group, maker, element in private_elements.SAFE:
                tag = group << 16 | (claim & 0xFF) << 8 | element
                if claim >> 16 == group and maker == creator and tag in item:
                    numbers = private_elements.private_numbers(item, group, maker, element)
                    if numbers and not self.identifiers.are_in(" ".join(f"{one:.15g}" for one in numbers)):
                        safe |= {claim, tag}
        return frozenset(safe)

    def _clean_element(self, item: pydicom.Dataset, tag: int, around: Surroundings) -> None:
        """One element by the table, then by the search for the patient's own identifiers."""
        vr = _representation(item, tag)
        action = self._action(tag, vr, around)
        if around.is_dummy and action in (Action.REMOVE, Action.EMPTY, Action.CLEAN, Action.SHIFT):
            action = Action.REPLACE
        if vr == "UI" and action is Action.KEEP and self.rules.profile.basic_action(tag, vr) is Action.MAP:
            action = Action.KEEP if all(map(UID.fullmatch, texts_of(item, tag, ()))) else Action.MAP
        if action is Action.SHIFT and vr not in DATES:  # but an offset from UTC, which is nobody's
            is_offset = vr == "SH" and all(map(OFFSET.fullmatch, texts_of(item, tag, ())))
            action = Action.KEEP if is_offset else self.rules.profile.basic_action(tag, vr)
        if vr == "SQ":
            self._clean_sequence(item, tag, action, around)
        elif action is Action.REMOVE:
            self._remove(item, tag)
        elif action is Action.EMPTY:
            self._empty(item, tag, vr, Action.EMPTY.value)
        elif action is Action.REPLACE or (around.is_dummy and vr in MADE_UP):
            self._replace(item, tag, vr)
        elif action is Action.MAP:
            self._map(item, tag)
        else:
            self._keep(item, tag, vr, action, around)

    def _action(self, tag: int, vr: str, around: Surroundings) -> Action:
        profile = self.rules.profile
        action = profile.action(tag, vr)
        if tag >> 24 == OVERLAYS:
            is_kept = "clean-graphics" in profile and self.keeps_overlay(tag >> 16)
            if not is_kept:
                return Action.REMOVE
            return Action.CLEAN if vr in TEXTS or tag & 0xFFFF in UNLISTED_OVERLAY_TEXT else Action.KEEP
        if tag >> 24 == CURVES and action is Action.CLEAN:
            return action if vr in TEXTS else Action.KEEP
        if around.is_content and tag in STATEMENTS:
            if action in (Action.SHIFT, Action.CLEAN) or (action is Action.KEEP and vr in DATES):
                return action
            return Action.EMPTY
        if around.is_cleaned and action is Action.KEEP and vr in TEXTS - {"CS"}:
            return Action.CLEAN
        return action

    def _clean_sequence(self, item: pydicom.Dataset, tag: int, action: Action, around: Surroundings) -> None:
        items = list(_items(item, tag))
        if action is Action.REMOVE or not items:
            self._remove(item, tag) if action is Action.REMOVE else self._empty(item, tag, "SQ", action.value)
        elif action is Action.EMPTY:
            self._empty(item, tag, "SQ", Action.EMPTY.value)
        elif action is Action.REPLACE and tag == CONTENT:
            item[tag] = pydicom.DataElement(tag, "SQ", [_empty_container()])
            self.counts[Action.REPLACE.value] += 1
        elif action is Action.REPLACE:
            self._clean_items(items[:1], around._replace(is_dummy=True))
            item[tag] = pydicom.DataElement(tag, "SQ", items[:1])
            self.counts[Action.REPLACE.value] += 1
        elif action is Action.CLEAN and tag == GRAPHICS:
            self._clean_graphics(item, items, around)
        elif action is Action.CLEAN or around.is_cleaned:
            self._clean_described(item, tag, items, around)
        else:
            self._clean_items(items, around)

    def _clean_described(
        self, item: pydicom.Dataset, tag: int, items: list[pydicom.Dataset], around: Surroundings
    ) -> None:
        """Content with its codes, numbers and coordinates; of other sequences the items whose words are common."""
        self.counts[Action.CLEAN.value] += 1
        if self.rules.profile.is_structure(tag):
            self._clean_items(items, around._replace(is_content=True))
            return
        self._clean_items(items, around._replace(is_cleaned=True))
        common = [one for one in items if len(one) and all(one.get(word, "absent") for word in CODE_WORDS)]
        item[tag] = pydicom.DataElement(tag, "SQ", common)
        if not common and self.rules.profile.basic_action(tag, "SQ") is Action.REMOVE:
            del item[tag]

    def _clean_graphics(self, item: pydicom.Dataset, items: list[pydicom.Dataset], around: Surroundings) -> None:
        """Lines and points without the texts that stand by them."""
        for one in items:
            if TEXT_OBJECTS in one:
                del one[TEXT_OBJECTS]
        with_graphics = [one for one in items if GRAPHIC_OBJECTS in one]
        self._clean_items(with_graphics, around)
        self.counts[Action.CLEAN.value] += 1
        if with_graphics:
            item[GRAPHICS] = pydicom.DataElement(GRAPHICS, "SQ", with_graphics)
        else:
            del item[GRAPHICS]

    def _keep(self, item: pydicom.Dataset, tag: int, vr: str, action: Action, around: Surroundings) -> None:
        """An element that stays: as it is, moved in time, or cleaned; empty where it still says who somebody is."""
        if action is Action.SHIFT and vr in ("DA", "DT"):
            self._shift(item, tag, vr)
        elif action is Action.CLEAN:
            self._clean_text(item, tag, vr, around)
        elif vr in DATES and not all(_is_time(one, vr) for one in texts_of(item, tag, around.encodings)):
            self._empty(item, tag, vr, IDENTIFYING)
        if tag == CHARACTER_SET:  # by now the object's own is one of the standard
            if not character_sets.are_valid_terms(tags.words(item, "SpecificCharacterSet")):
                self._remove(item, tag)
        elif tag in item and self._identifies(item, tag, vr, around.encodings):
            self._take_out(item, tag, vr, around.encodings)

    def _identifies(self, item: pydicom.Dataset, tag: int, vr: str, encodings: Sequence[str]) -> bool:
        if vr in DATES or (tag >> 16 == 0x0028 and vr == "CS"):
            return False
        content = raw_bytes(item, tag)
        if vr == "UI":
            return content is not None and UID_BYTES.fullmatch(content) is None
        if vr in WRITTEN_NUMBERS and (content is None or NUMBER_BYTES.fullmatch(content)):
            return any(len(one) >= 6 and one in self.identifiers.words for one in texts_of(item, tag, encodings))
        if vr in BYTES:
            is_short = content is not None and len(content) <= LARGEST_SEARCHED
            return bool(is_short) and self.identifiers.are_in_bytes(content or b"", encodings)
        if vr not in TEXTS and vr not in WRITTEN_NUMBERS:
            return False
        if any(map(self.identifiers.are_in, texts_of(item, tag, encodings))):
            return True
        is_plain = content is None or content.isascii()
        return not is_plain and self.identifiers.are_in_bytes(content or b"", encodings)

    def _take_out(self, item: pydicom.Dataset, tag: int, vr: str, encodings: Sequence[str]) -> None:
        """Empty a text that holds an identifier, of several values those that do; a dummy where one must stand."""
        instead = DUMMY if pydicom.datadict.keyword_for_tag(tag) in NEVER_EMPTY else ""
        values = texts_of(item, tag, encodings) if vr in TEXTS else []
        others = [instead if self.identifiers.are_in(one) else one for one in values]
        if any(others) and others != values:
            item[tag] = pydicom.DataElement(tag, vr, others)
            self.counts[IDENTIFYING] += 1
        else:
            self._empty(item, tag, vr, IDENTIFYING)

    def _shift(self, item: pydicom.Dataset, tag: int, vr: str) -> None:
        texts = [one for one in texts_of(item, tag, ()) if one]
        moved = [self.rules.names.shift_date(one, self.patient) if _is_time(one, vr) else None for one in texts]
        if all(moved):
            item[tag] = pydicom.DataElement(tag, vr, moved or None)
            self.counts[Action.SHIFT.value] += 1
        else:  # a year alone, or no date at all
            self._empty(item, tag, vr, Action.EMPTY.value)

    def _clean_text(self, item: pydicom.Dataset, tag: int, vr: str, around: Surroundings) -> None:
        """A description with its common words; without any the element goes as the basic profile says."""
        texts = texts_of(item, tag, around.encodings) if vr in TEXTS else []
        kept = [self.rules.words.keep(one) for one in texts]
        self.counts[Action.CLEAN.value] += 1
        if kept == texts and vr in TEXTS:
            return
        if any(kept):
            item[tag] = pydicom.DataElement(tag, vr, [one for one in kept if one])
            return
        match self.rules.profile.basic_action(tag, vr):
            case Action.REMOVE:
                self._remove(item, tag)
            case Action.REPLACE:
                self._replace(item, tag, vr)
            case _:
                self._empty(item, tag, vr, Action.EMPTY.value)

    def _map(self, item: pydicom.Dataset, tag: int) -> None:
        uids = [self.rules.names.uid(one) for one in texts_of(item, tag, ()) if one]
        if uids:
            item[tag] = pydicom.DataElement(tag, "UI", uids)
            self.counts[Action.MAP.value] += 1

    def _replace(self, item: pydicom.Dataset, tag: int, vr: str) -> None:
        dummy, size = DUMMIES.get(vr, DUMMY), {"FL": 4, "FD": 8}.get(vr, 0)
        several = [dummy] * max(len(raw_bytes(item, tag) or b"") // size, 1) if size else dummy
        item[tag] = pydicom.DataElement(tag, vr, several)
        self.counts[Action.REPLACE.value] += 1

    def _empty(self, item: pydicom.Dataset, tag: int, vr: str, kind: str) -> None:
        item[tag] = pydicom.DataElement(tag, vr, [] if vr == "SQ" else None)
        self.counts[kind] += 1

    def _remove(self, item: pydicom.Dataset, tag: int) -> None:
        del item[tag]
        self.counts[Action.REMOVE.value] += 1


def new_uid(uid: str, names: KeyedNames, *, retain: bool) -> str:
    """The UID that stands for one, which stays itself where UIDs are retained and it is one. PS3.5 9.1"""
    return uid if retain and UID.fullmatch(uid) else names.uid(uid)


def encodings_of(dataset: pydicom.Dataset) -> list[str]:
    """Python's names of the encodings that an object or an item states for its text; Latin-1 where it states none."""
    stated = dataset.get("SpecificCharacterSet") or "ISO_IR 6"
    return pydicom.charset.convert_encodings(stated if isinstance(stated, str) else list(stated))


def texts_of(item: pydicom.Dataset, tag: int, encodings: Sequence[str]) -> list[str]:
    """The values of an element as text, decoded where the file's bytes are still there; the element stays as it is."""
    element = item.get_item(tag)
    if isinstance(element, pydicom.DataElement):
        value = element.value
        return [] if value is None else [str(one) for one in tags.values_in(value)]
    content, vr = element.value or b"", _representation(item, tag)
    try:
        delimiters = {ord(mark) for mark in ("\\^=" if vr == "PN" else "\\\r\n\t\f")}
        text = pydicom.charset.decode_bytes(content, list(encodings) or ["iso8859"], delimiters)
    except (LookupError, UnicodeError):
        text = content.decode("latin-1")
    return [one.strip(" \0") for one in ([text] if vr in ("LT", "ST", "UT", "UR") else text.split("\\"))]


def raw_bytes(item: pydicom.Dataset, tag: int) -> bytes | None:
    """The bytes of an element, None where the library has made a value of them."""
    element = item.get_item(tag)
    if isinstance(element, pydicom.DataElement):
        return element.value if isinstance(element.value, bytes) else None
    return element.value or b""


def walk_elements(
    dataset: pydicom.Dataset, encodings: Sequence[str] = ()
) -> Iterator[tuple[pydicom.Dataset, int, str, Sequence[str]]]:
    """(item, tag, value representation, encodings) of each element but the pixels, those in sequences too."""
    own = encodings_of(dataset) if CHARACTER_SET in dataset or not encodings else encodings
    for tag in list(dataset.keys()):
        if tag >> 16 == PIXELS:
            continue
        vr = _representation(dataset, tag)
        if vr == "SQ":
            for item in _items(dataset, tag):
                yield from walk_elements(item, own)
        else:
            yield dataset, tag, vr, own


def _items(item: pydicom.Dataset, tag: int) -> Sequence[pydicom.Dataset]:
    """The items of a sequence; none of one that cannot be parsed."""
    try:
        value = item[tag].value
    except tags.pydicom_errors():
        return ()
    return value if isinstance(value, pydicom.Sequence) else ()


def _representation(item: pydicom.Dataset, tag: int) -> str:
    """The value representation in the file, else that of the dictionary, of two the first."""
    stated = item.get_item(tag).VR
    if stated and stated not in ("UN", "OB or OW"):
        return str(stated)
    try:
        return str(pydicom.datadict.dictionary_VR(tag)).partition(" or ")[0]
    except KeyError:
        return "UN"


def _is_known(tag: int) -> bool:
    """Whether the dictionary of the standard knows an element; never a private one."""
    try:
        return (tag >> 16) % 2 == 0 and bool(pydicom.datadict.get_entry(tag))
    except KeyError:
        return False


def _is_time(text: str, vr: str) -> bool:
    """Whether a text is what its value representation of dates and times holds, or nothing. PS3.5 6.2"""
    return not text or (TIME if vr == "TM" else DATE_TIME).fullmatch(text.strip()) is not None


def _empty_container() -> pydicom.Dataset:
    """Content of a report that says nothing, PS3.3 C.17.3."""
    container = pydicom.Dataset()
    container.RelationshipType, container.ValueType, container.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    return container
