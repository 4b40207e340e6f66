"""DICOM's modalities, from the words that people use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from hilum.errors import UsageError

# PS3.3 C.7.3.1.1.1, and the words that data sets write instead.
WORDS = {
    "MR": ("mri", "mr", "t1", "t1w", "t1ce", "t1c", "t1gd", "t1n", "t2", "t2w",
           "t2f", "t2star", "flair", "adc", "dwi", "pd", "bold", "swi",
           "cet1", "hrt2", "t1post", "t1pre", "mprage", "hbv", "tof", "mra",
           "magneticresonance", "magneticresonanceimaging"),
    "CT": ("ct", "cbct", "ncct", "cta", "cect", "noncontrastct", "computedtomography"),
    "PT": ("pet", "pt", "suv", "fdg", "positronemissiontomography"),
    "US": ("us", "ultrasound", "sonography"),
    "PA": ("photoacoustic", "optoacoustic"),
    "DX": ("dx", "xray", "radiograph", "cxr", "chestxray"),
    "CR": ("cr",),
    "MG": ("mg", "mammography", "mammogram"),
    "NM": ("nm", "spect"),
    "XA": ("xa", "angiography"),
    "OP": ("op", "fundus", "cfp"),
    "OPT": ("opt", "oct", "opticalcoherencetomography"),
    "SM": ("sm", "wsi", "histology", "histopathology", "digitalpathology"),
    "GM": ("gm", "microscopy", "fluorescence", "cytology"),
    "ES": ("es", "endoscopy", "colonoscopy"),
    "XC": ("xc", "photo", "photograph", "dermoscopy", "dermatology"),
}  # fmt: skip
_BY_WORD = {word: modality for modality, words in WORDS.items() for word in words}


# Every code of PS3.3 C.7.3.1.1.1 in edition 2024b, the retired ones too.
CODES = frozenset(re.findall(
    r"\w+",
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT "
    "IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG "
    "RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN TEXTUREMAP TG US "
    "VA XA XAPROTOCOL XC AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF",
))  # fmt: skip
UNKNOWN_MODALITY = "unknown"
# {word that people write for several modalities, in small letters alone: which of them there are}.
SEVERAL = {
    "fluoroscopy": "RF, or XA of vessels",
    "multimodal": "no --modality: channels called CT and PET state theirs themselves",
    "nuclearmedicine": "PET or SPECT",
    "ophthalmology": "fundus or OCT",
    "pathology": "histopathology for slides, cytology for smears",
    "radiography": "X-ray, or mammography",
    "retinal": "fundus or OCT",
}


def asked_modality(name: str) -> str:
    """The modality that a person asks for. Raises UsageError for a word that is none."""
    word = modality_word(name)
    if word in CODES or name.lower() == UNKNOWN_MODALITY:
        return word
    where = f"--modality {name}"
    letters = _letters_of(name)
    if letters in SEVERAL:
        raise UsageError("is not a modality, but a word for several", where, f"Use {SEVERAL[letters]}")
    near = get_close_matches(name.upper(), sorted(CODES), 1, cutoff=0.5)
    raise UsageError(
        f"is not a modality{f'; perhaps {near[0]} is meant' if near else ''}",
        where,
        f"Choose one of {', '.join(WORDS)}, a word such as MRI or X-ray, or another of DICOM's codes "
        f"({', '.join(sorted(CODES - set(WORDS)))})",
    )


def modality_word(name: str | None) -> str:
    """The modality of a name: MR of "MRI", "T1" or "FLAIR", DX of "X-ray"; other capitals stay; else "unknown"."""
    if not name:
        return UNKNOWN_MODALITY
    for word in (_letters_of(name), *re.split(r"[^a-z0-9]+", name.lower())):
        if word in _BY_WORD:
            return _BY_WORD[word]
    return name if name in CODES or re.fullmatch(r"[A-Z]{2,6}", name) else UNKNOWN_MODALITY


def common_modality(names: Sequence[str]) -> str | None:
    """The one modality of all channels; None where they differ or none is known."""
    words = {modality_word(one) for one in names}
    return words.pop() if len(words) == 1 and UNKNOWN_MODALITY not in words else None


def _letters_of(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
