"""What a NIfTI header states besides grid and voxels: the meaning of its values, display, times, and extensions.

nifti1.h (intents, cal_min, toffset, slice_code, aux_file); https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from hilum import errors
from hilum.errors import FormatError
from hilum.files import label_table
from hilum.files.nifti.nifti_header import INTENTS
from hilum.values import FactRule, Label

# NIFTI_INTENT_* of which the values are no plain intensities: statistics, matrices and displacements.
STATISTICS = {
    2: "correlations", 3: "t scores", 4: "F scores", 5: "z scores", 6: "chi squared", 7: "beta", 8: "binomial",
    9: "gamma", 10: "Poisson", 11: "normal", 12: "noncentral F", 13: "noncentral chi squared", 14: "logistic",
    15: "Laplace", 16: "uniform", 17: "noncentral t", 18: "Weibull", 19: "chi", 20: "inverse Gaussian",
    21: "extreme values", 22: "p values", 23: "log p values", 24: "log10 p values", 1001: "estimates",
    1003: "names of brain regions", 1004: "matrices", 1005: "symmetric matrices", 1006: "displacements",
    1010: "quaternions", 1011: "values without a unit",
}  # fmt: skip
# Codes of extensions, https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields/nifti1fields_pages/extension.html
CARET = 30
NO_FILE = (b"", b"none")  # SPM writes the word
EXTENSIONS = {
    2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 10: "JIM", 12: "workflow", 14: "FreeSurfer", 16: "pickle",
    18: "MiND", 20: "b-values", 22: "spherical directions", 24: "tensor", 26: "spherical harmonics", 28: "VoxBo",
    CARET: "Caret", 34: "variable times of frames", 38: "evaluation", 40: "MATLAB", 42: "Quantiphyse", 44: "MRS",
}  # fmt: skip
FACTS = (
    FactRule("NIfTI", "read", "labels of a Caret extension"),
    FactRule("NIfTI", "read", "that it is a label map (intent)"),
    FactRule("NIfTI", "named", "statistics, displacements and matrices (intent)"),
    FactRule("NIfTI", "read", "display range (cal_min, cal_max)"),
    FactRule("NIfTI", "named", "start of the series and times of slices (toffset, slice_code)"),
    FactRule("NIfTI", "named", "another file (aux_file)"),
    FactRule("NIfTI", "named", "other extensions"),
)


def display_window(header: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the display range, as a fact of an image; None where none is stated."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return ((low + high) / 2, high - low, "LINEAR_EXACT") if math.isfinite(high - low) and high > low else None


def is_label_map(header: Any) -> bool:
    """Whether the header says that values are labels."""
    return int(header["intent_code"]) == INTENTS["label"]


def statement_notes(header: Any, frames: int | None) -> Iterator[str]:
    """Notes on what the header states and the image does not hold."""
    intent = int(header["intent_code"])
    if intent in STATISTICS:
        yield f"The header says that values are {STATISTICS[intent]} (intent_code {intent})."
    if frames is not None and float(header["toffset"]):
        yield "The header states when the first frame was taken (toffset): times are from that frame."
    if frames is not None and (int(header["slice_code"]) or float(header["slice_duration"])):
        yield "The header states times of slices (slice_code, slice_duration), which are not used."
    if bytes(header["aux_file"].tobytes()).split(b"\0")[0].strip().lower() not in NO_FILE:
        yield "The header names another file (aux_file), which is not read."
    codes = [one.get_code() for one in extensions_of(header)]
    unread = dict.fromkeys(code for code in codes if code != CARET)
    if unread:
        named = errors.list_phrase(f"{EXTENSIONS.get(code, 'unknown')} ({code})" for code in unread)
        yield f"The header has extensions that are not read: {named}."


def extensions_of(header: Any) -> list[Any]:
    """The extensions as nibabel holds them; none of a header without."""
    extensions = header.extensions
    return [] if isinstance(extensions, bytes) else list(extensions)


def labels_in_extension(header: Any, where: str) -> tuple[Label, ...]:
    """The labels that Connectome Workbench keeps in a Caret extension; none where there is no such table.

    Raises FormatError for a table that cannot be read.
    """
    labels = []
    for extension in extensions_of(header):
        if extension.get_code() != CARET:
            continue
        try:
            root = ElementTree.fromstring(bytes(extension.content).rstrip(b"\0 "))  # noqa: S314  the parser refuses entities that grow
            labels += [_label(one) for one in root.iter("Label")]
        except (ElementTree.ParseError, ValueError, TypeError) as error:
            problem = f"its table of labels (Caret extension) cannot be read ({errors.describe_cause(error)})"
            raise FormatError(problem, where, "Save it again with Connectome Workbench") from error
    return label_table.check_labels((label for label in labels if label.value), where)


def _label(element: ElementTree.Element) -> Label:
    value = int(element.get("Key", ""))
    red, green, blue = (round(255 * float(element.get(name, 0))) for name in ("Red", "Green", "Blue"))
    return Label(value, label_table.clean_name(element.text or "") or str(value), (red, green, blue))
