"""Flags by which a DICOM object says what it is: not used to read it, and named. PS3.3 C.7.6.1, C.8.16.2, C.8.6.1

Planes and profiles that belong to the pixels and are not applied to them are named too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.values import FactRule

SOURCE = "DICOM"


@dataclass(frozen=True)
class ObjectFlag:
    """An attribute of which some values are worth a note.

    values:  those values
    meaning: what they say of the object, in words
    """

    keyword: str
    values: tuple[str, ...]
    meaning: str

    @property
    def rule(self) -> FactRule:
        """Its row of the table of what files state of themselves."""
        return FactRule(SOURCE, "named", f"{self.keyword} ({', '.join(self.values)})")


FLAGS = (
    ObjectFlag("ImageType", ("DERIVED",), "made from other images"),
    ObjectFlag("ImageType", ("LOCALIZER",), "made to plan other images"),
    ObjectFlag("ImageType", ("PROJECTION IMAGE", "MIP", "MINIP"), "several slices projected onto one"),
    ObjectFlag("ImageType", ("SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"), "a picture of a screen"),
    ObjectFlag("ImageType", ("LABEL", "OVERVIEW", "THUMBNAIL"), "the label or overview of a slide"),
    ObjectFlag("ConversionType", ("DF", "SD", "SI", "DRW"), "a digitised film, document or drawing"),
    ObjectFlag("PixelPresentation", ("COLOR", "MIXED"), "colours belong to the grey values, and are not applied"),
    ObjectFlag("VolumetricProperties", ("DISTORTED", "SAMPLED", "MIXED"), "slices do not show the volume as it is"),
    ObjectFlag("QualityControlSubject", ("YES",), "a phantom and no patient"),
    ObjectFlag("ContentQualification", ("RESEARCH", "SERVICE"), "not made for the care of a patient"),
    ObjectFlag("QualityControlImage", ("YES", "BOTH"), "made for quality control"),
    ObjectFlag("BurnedInAnnotation", ("YES",), "text is burnt into the pixels, and may name a person"),
    ObjectFlag("RecognizableVisualFeatures", ("YES",), "a face may be recognised"),
    ObjectFlag("PixelIntensityRelationship", ("LOG", "DISP"), "values are no straight measure of intensity"),
    ObjectFlag("LossyImageCompression", ("01",), "the pixels were compressed with loss"),
    ObjectFlag("SpecimenLabelInImage", ("YES",), "the label of a slide is in the picture"),
)
OVERLAYS = "OverlayData (60xx,3000)"
PROFILE = "ICCProfile"
FACTS = (
    *(flag.rule for flag in FLAGS),
    FactRule(SOURCE, "named", "OverlayData"),
    FactRule(SOURCE, "named", "ICCProfile of colours"),
)


def flag_notes(heads: Sequence[Header]) -> tuple[str, ...]:
    """A note for each flag that is set, with the number of files where not all state it."""
    return (*_flags_set(heads), *_planes_left_out(heads))


def _flags_set(heads: Sequence[Header]) -> Iterator[str]:
    words = {keyword: [tags.words(head.dataset, keyword) for head in heads] for keyword in _keywords()}
    for flag in FLAGS:
        stated = [value for values in words[flag.keyword] for value in flag.values if value in values]
        files = sum(any(value in flag.values for value in values) for values in words[flag.keyword])
        # A volume of which some slices are derived has a note of its own, by frame.
        if not files or (files < len(heads) and "DERIVED" in flag.values):
            continue
        values = ", ".join(dict.fromkeys(stated))
        yield _counted(f"{tags.keyword_with_tag(flag.keyword)} is {values}: {flag.meaning}", files, len(heads))


def _keywords() -> tuple[str, ...]:
    return tuple(dict.fromkeys(flag.keyword for flag in FLAGS))


def _planes_left_out(heads: Sequence[Header]) -> Iterator[str]:
    if files := sum(_has_overlay(head.dataset) for head in heads):
        yield _counted(f"{OVERLAYS} is left out: text or outlines beside the pixels", files, len(heads))
    if files := sum(PROFILE in head.dataset for head in heads):
        yield _counted(f"{tags.keyword_with_tag(PROFILE)} is not applied: colours are as stored", files, len(heads))


def _has_overlay(dataset: DicomDataset) -> bool:
    """Whether one of the planes of groups 6000 to 60FF is there. PS3.3 C.9.2"""
    return any(int(tag) >> 24 == 0x60 and int(tag) & 0xFFFF == 0x3000 for tag in dataset.keys())  # noqa: SIM118


def _counted(note: str, files: int, every: int) -> str:
    return note if files == every else f"{note} ({files} of {every} files)"
