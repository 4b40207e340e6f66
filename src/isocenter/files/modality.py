"""DICOM's modalities, from the words that people use."""

from __future__ import annotations

import re
from collections.abc import Sequence

# PS3.3 C.7.3.1.1.1, and the words that data sets write instead.
WORDS = {
    "MR": ("mri", "mr", "t1", "t1w", "t1ce", "t1c", "t1gd", "t1n", "t2", "t2w",
           "t2f", "t2star", "flair", "adc", "dwi", "pd", "bold", "swi"),
    "CT": ("ct", "cbct", "ncct", "cta", "cect", "noncontrastct"),
    "PT": ("pet", "pt", "suv", "fdg"),
    "US": ("us", "ultrasound", "sonography"),
    "DX": ("dx", "xray", "radiograph", "cxr", "chestxray"),
    "CR": ("cr",),
    "MG": ("mg", "mammography", "mammogram"),
    "NM": ("nm", "spect"),
    "XA": ("xa", "angiography"),
    "OP": ("op", "fundus", "cfp"),
    "OPT": ("opt", "oct"),
    "SM": ("sm", "wsi", "histology", "histopathology"),
    "GM": ("gm", "microscopy", "fluorescence", "cytology"),
    "ES": ("es", "endoscopy", "colonoscopy"),
    "XC": ("xc", "photo", "photograph", "dermoscopy", "dermatology"),
}  # fmt: skip
_BY_WORD = {word: modality for modality, words in WORDS.items() for word in words}


def modality_word(name: str | None) -> str:
    """The modality of a name: MR of "MRI", "T1" or "FLAIR", DX of "X-ray"; other capitals stay; else "unknown"."""
    if not name:
        return "unknown"
    whole = re.sub(r"[^a-z0-9]", "", name.lower())
    for word in (whole, *re.split(r"[^a-z0-9]+", name.lower())):
        if word in _BY_WORD:
            return _BY_WORD[word]
    return name if re.fullmatch(r"[A-Z]{2,6}", name) else "unknown"


def common_modality(names: Sequence[str]) -> str | None:
    """The one modality of all channels; None where they differ or none is known."""
    words = {modality_word(one) for one in names}
    return words.pop() if len(words) == 1 and "unknown" not in words else None
