"""One DICOM file to one without identity: what is refused, whose it is, how it is cleaned and written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hilum.deidentification import attribute_cleaning, burned_in_text, pixel_bytes, stated_text
from hilum.deidentification.attribute_cleaning import CleaningRules, ObjectCleaner
from hilum.deidentification.burned_in_text import HiddenPlaces, SeriesLook
from hilum.deidentification.common_words import CommonWords
from hilum.deidentification.confidentiality_profile import ConfidentialityProfile
from hilum.deidentification.identifiers import PatientIdentifiers
from hilum.deidentification.keyed_names import KeyedNames
from hilum.errors import FormatError
from hilum.files.dicom import character_sets, header_reading, tags
from hilum.files.dicom.elements import UNDEFINED
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import pixel_decoding, pixel_layout
from hilum.files.dicom.uids import DEFLATED, EXPLICIT, NATIVE
from hilum.files.dicom.writing import new_object
from hilum.files.storage import atomic, hashing
from hilum.lazy import pydicom

if TYPE_CHECKING:
    from pydicom.dataset import FileMetaDataset

ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."  # documents and models within an object, PS3.4 B.5
ALWAYS = ("SOPClassUID", "SOPInstanceUID")


@dataclass(frozen=True)
class ObjectFacts:
    """Whose an object is, and which: as its file states it, and the new name of its patient."""

    path: Path
    patient: str
    number: str
    issuer: str
    study: str
    series: str
    instance: str

    @property
    def whole_series(self) -> tuple[str, ...]:
        """What the objects of one series share."""
        return self.patient, self.study, self.series

    def output(self, names: KeyedNames, *, retain_uids: bool) -> Path:
        """Where the object lies in what is handed on: patient, study, series, instance, all by new names."""
        uids = (self.study, self.series, self.instance)
        study, series, instance = (attribute_cleaning.new_uid(one, names, retain=retain_uids) for one in uids)
        return Path(self.patient, study, series, f"{instance}.dcm")


@dataclass(eq=False)
class IdentifierSurvey:
    """What all files of an input say together: identifiers of each patient, words of descriptions."""

    rules: CleaningRules
    identifiers: dict[str, PatientIdentifiers] = field(default_factory=lambda: defaultdict(PatientIdentifiers))
    looks: dict[tuple[str, ...], SeriesLook] = field(default_factory=lambda: defaultdict(SeriesLook))

    def examine(self, path: Path) -> ObjectFacts:
        """Whose an object is; notes what it says of them. Raises FormatError for what is never handed on."""
        head = header_reading.read_header(path)
        _refuse_object(head)
        if "clean-pixels" not in self.rules.profile:
            _refuse_stated_text(head)
        facts = facts_of(head, self.rules.names)
        self._note(head.library, facts.patient)
        if "clean-pixels" in self.rules.profile:
            self.looks[facts.whole_series].add(path, read_whole(path))
        return facts

    def write(
        self, facts: ObjectFacts, target: Path, *, accept: bool = False
    ) -> tuple[HiddenPlaces, Mapping[str, int]]:
        """Write an object without identity, once all are examined; what is blacked, and the actions by kind.

        accept: write also what a person has to look at. Without it no action means that nothing was written
        Raises FormatError.
        """
        dataset, hidden = read_whole(facts.path), None
        if "clean-pixels" in self.rules.profile:
            hidden = self.looks[facts.whole_series].find(facts.path, dataset)
            if hidden.needs_look and not accept:
                return hidden, {}
        cleaner = ObjectCleaner(self.rules, facts.patient, self.identifiers[facts.patient])
        return hidden or HiddenPlaces(), write_clean(dataset, cleaner, target, str(facts.path), hidden)

    def _note(self, dataset: pydicom.Dataset, patient: str) -> None:
        own, profile = self.identifiers[patient], self.rules.profile
        for item, tag, vr, encodings in attribute_cleaning.walk_elements(dataset):
            is_text = vr in attribute_cleaning.TEXTS or vr == "DA"
            if not is_text or (tag >> 16) % 2:
                continue
            texts = attribute_cleaning.texts_of(item, tag, encodings)
            keyword = pydicom.datadict.keyword_for_tag(tag)
            own.add(keyword, vr, texts, institutions="retain-institution" not in profile)
            is_code = keyword in attribute_cleaning.CODE_WORDS and "clean-descriptors" in profile
            if is_code or profile.is_description(tag):
                for text in texts:
                    self.rules.words.add(text, patient)


def write_alone(path: Path, target: Path, profile: ConfidentialityProfile, names: KeyedNames) -> None:
    """Write one object without identity, with no other beside it. Raises FormatError for one that may not go."""
    survey = IdentifierSurvey(CleaningRules(profile, names, CommonWords()))
    _, actions = survey.write(survey.examine(path), target, accept=False)
    if not actions:
        problem = "it shows what a person has to look at first"
        raise FormatError(problem, str(path), "Hand it on with `hilum deidentify`")


def facts_of(head: Header, names: KeyedNames) -> ObjectFacts:
    """Whose an object is, and which. Raises FormatError where it lacks its class or its UID."""
    dataset = head.library
    if lacking := ", ".join(keyword for keyword in ALWAYS if not tags.text(dataset, keyword)):
        raise FormatError(f"states no {lacking}", head.where, "Get the file again from its source")
    number, issuer = tags.text(dataset, "PatientID"), tags.text(dataset, "IssuerOfPatientID")
    is_nobody = hashing.is_nobody(number)
    instance, study, series = (tags.text(dataset, f"{level}InstanceUID") for level in ("SOP", "Study", "Series"))
    study = study or f"of {issuer} {number}".strip()  # by such names objects without one lie in a folder
    patient = names.patient_of_study(study) if is_nobody else names.patient_of_number(number, issuer)
    return ObjectFacts(head.path, patient, "" if is_nobody else number, issuer, study, series or study, instance)


def _refuse_object(head: Header) -> None:
    """Raise FormatError for a directory, a document, and an image with a part of its pixels."""
    if head.is_directory:
        remedy = "Give the files that it lists, without it"
        raise FormatError("is a DICOMDIR, which lists patients by name", head.where, remedy)
    if head.sop_class.startswith(ENCAPSULATED) or "EncapsulatedDocument" in head.dataset:
        problem = f"is a document within DICOM ({head.sop_class_name}), of which nobody here sees what it says"
        raise FormatError(problem, head.where, "Leave it out, or hand it on by hand")
    if head.has_pixels:
        header_reading.check_pixels(head)


def _refuse_stated_text(head: Header) -> None:
    """Raise FormatError for an object that says itself that its pixels show text, a label or a person."""
    problem = stated_text.statement(head.dataset) if head.has_pixels else None
    if problem is not None:
        raise FormatError(problem, head.where, "Give --options clean-pixels, which looks for text, or leave it out")


def read_whole(path: Path) -> pydicom.Dataset:
    """All of an object, its text by character sets of the standard. Raises FormatError."""
    dataset = header_reading.read_object(path)
    _refuse_cut(dataset, path)
    if not character_sets.are_valid_terms(tags.words(dataset, "SpecificCharacterSet")):
        with suppress(*tags.pydicom_errors()):
            dataset.decode()
        dataset.SpecificCharacterSet = character_sets.UTF_8
    dataset.file_meta = cast("FileMetaDataset", tags.file_meta(dataset))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(pixel_layout.transfer_syntax(dataset, str(path)))
    return dataset


def _refuse_cut(dataset: pydicom.Dataset, path: Path) -> None:
    """Raise FormatError for a file that ends within an element, which the library reads as if it were whole."""
    if tags.text(tags.file_meta(dataset), "TransferSyntaxUID") == DEFLATED:
        return
    last = dataset.get_item(list(dataset.keys())[-1]) if len(dataset) else None  # in the order of the file
    if not isinstance(last, pydicom.dataelem.RawDataElement) or last.length == UNDEFINED:
        return
    if last.value_tell + last.length != path.stat().st_size:
        raise FormatError("is cut short within an element", str(path), "Get the file again from its source")


def write_clean(
    dataset: pydicom.Dataset, cleaner: ObjectCleaner, target: Path, where: str, hidden: HiddenPlaces | None = None
) -> Mapping[str, int]:
    """Clean an object, black what is hidden, and write it whole or not at all; the actions by kind.

    Raises FormatError.
    """
    try:
        pixel_bytes.bare_pixels(dataset, where)
        if _must_be_written_anew(dataset, cleaner.identifiers, where, hidden):
            burned_in_text.hide_places(dataset, hidden or HiddenPlaces(), where)
        cleaner.keeps_overlay = cache(partial(burned_in_text.is_text_free, dataset))
        cleaner.clean(dataset)
        if hidden is not None and pixel_decoding.has_pixels(dataset):
            dataset.BurnedInAnnotation = "NO"
        content = _encode_object(dataset, where)
    except tags.pydicom_errors() as error:
        # The library's words may hold a value.
        problem = f"cannot be written without identity ({type(error).__name__})"
        raise FormatError(problem, where, "Get the file again from its source") from None
    with atomic.write_whole(target, overwrite=True) as partial_file:
        partial_file.write_bytes(content)
    return dict(cleaner.counts)


def _must_be_written_anew(
    dataset: pydicom.Dataset, identifiers: PatientIdentifiers, where: str, hidden: HiddenPlaces | None
) -> bool:
    """Whether pixels change: places are blacked, more than pixels lies in them, or compressed frames hold a name."""
    if hidden is not None and hidden.places:
        return True
    if "PixelData" not in dataset:
        return False
    if pixel_bytes.holds_more_than_pixels(dataset, where):
        return True
    is_native = dataset.file_meta.TransferSyntaxUID in NATIVE
    return not is_native and identifiers.are_in_bytes(dataset["PixelData"].value or b"")


def _encode_object(dataset: pydicom.Dataset, where: str) -> bytes:
    """The file of an object, in its own syntax. The library does not know the newest ones, all explicit: PS3.5 A.4

    In memory first, because the library hides why a disk refuses to write.
    """
    syntax, file = dataset.file_meta.TransferSyntaxUID, BytesIO()
    if syntax.is_private or syntax.is_transfer_syntax:
        dataset.save_as(file, enforce_file_format=True)
    else:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(pydicom.filebase.DicomFileLike(file), dataset.file_meta)
        file.write(new_object.encode_dataset(dataset, EXPLICIT, where))
    return file.getvalue()
