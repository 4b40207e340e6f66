"""The attributes by which an object says itself that its pixels show who somebody is.

Without `clean-pixels` nobody looks at pixels: such an object is then held back.
"""

from __future__ import annotations

from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset

# Words of Image Type of a slide's label and of the photograph of the whole slide, PS3.3 C.8.12.4.1.1, and of copies of
# a screen, which scanners write with the patient's name, as the lists of pydicom/deid have them.
LABELS = frozenset({"LABEL", "OVERVIEW"})
SCREENS = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN", "SCREENSHOT", "DOSE INFO", "DOSE_INFO"})
SCANNED_DOCUMENT = "SD"  # Conversion Type, PS3.3 C.8.6.1.1.1


def statement(dataset: DicomDataset) -> str | None:
    """What an object says of its pixels in a refusal's words; None where it says nothing of the kind."""
    image_type = {word.strip().upper() for word in tags.words(dataset, "ImageType")}
    if doubt := standing_doubt(dataset):
        return doubt
    if _says_yes(dataset, "BurnedInAnnotation"):
        return "states that text is burned into its pixels (Burned In Annotation)"
    if image_type & LABELS:
        return "is a photograph of a slide, which may show its label (Image Type)"
    if image_type & SCREENS:
        return "is a copy of a screen, which may show a name (Image Type)"
    if tags.text(dataset, "ConversionType").upper() == SCANNED_DOCUMENT:
        return "is a scanned document (Conversion Type)"
    return None


def standing_doubt(dataset: DicomDataset) -> str:
    """Why a person has to look even where `clean-pixels` finds no text: handwriting, bar codes and faces stay."""
    image_type = {word.strip().upper() for word in tags.words(dataset, "ImageType")}
    if "LABEL" in image_type or _says_yes(dataset, "SpecimenLabelInImage"):
        return "shows the label of a slide, whose handwriting and bar codes are not found"
    if _says_yes(dataset, "RecognizableVisualFeatures"):
        return "states that a person can be recognised in it (Recognizable Visual Features)"
    return ""


def _says_yes(dataset: DicomDataset, keyword: str) -> bool:
    return tags.text(dataset, keyword).strip().upper() == "YES"
