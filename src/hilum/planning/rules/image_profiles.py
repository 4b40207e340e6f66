"""Profiles of kinds of image: how each is normalised and may be varied, known before the first is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hilum.files.modality_words import UNKNOWN_MODALITY

# "always":   no axis of the image means a side of the patient, or its mirror image is one that the same device makes
# "symmetric": across left and right only where what is imaged is known to be alike on both sides
# "unless":    across left and right unless what is imaged is known not to be
# "never":     nothing is known
Mirrors = Literal["always", "symmetric", "unless", "never"]
ALWAYS = "always"
SYMMETRIC = "symmetric"
NEVER = "never"
# What a number means that means the same in every image: HU, SUV.
WINDOW = "window"
UPTAKE = "uptake"


@dataclass(frozen=True)
class Profile:
    """One kind of image.

    codes:    DICOM's words for it (PS3.3 C.7.3.1.1.1)
    scheme:   "window" (HU) or "uptake" (SUV) where a number means the same in every image, else "zscore"
    mirrors:  when mirroring leaves an image that could have been taken
    upright:  whether the image has an up; without one it may be turned by quarters and mirrored along every axis
    rotation: degrees that patients, probes and slides lie differently
    changes:  strength of each kind of change that befalls such images, by its name in Augmentation
    why:      the reasons, as clauses by the same names, and of "mirrors"
    """

    name: str
    codes: tuple[str, ...]
    scheme: Literal["zscore", "window", "uptake"] = "zscore"
    mirrors: Mirrors = "never"
    upright: bool = True
    rotation: float = 15.0
    changes: Mapping[str, float] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


# Strengths where nothing is known of the kind of image (Isensee et al., Nature Methods 2021).
DISPLAY = {"contrast": 0.25, "brightness": 0.15, "gamma": 0.4, "noise": 0.1}
NNUNET = "doi:10.1038/s41592-020-01008-z"

XRAY = Profile(
    "x-ray",
    ("DX", "CR", "RF", "XA", "RG", "PX", "IO"),
    mirrors="symmetric",
    rotation=10.0,
    changes={**DISPLAY, "blur": 0.7},
    why={
        "mirrors": "a radiograph may show the chest or the abdomen, whose sides differ",
        "rotation": "patients stand or lie nearly straight before the detector",
        "blur": "some patients move",
    },
    source="arXiv:2111.00595",
)
CT = Profile(
    "CT",
    ("CT",),
    scheme="window",
    mirrors="symmetric",
    changes={"contrast": 0.1, "brightness": 0.1, "gamma": 0.2, "noise": 0.05, "blur": 0.7, "low_resolution": 0.5}
    | {"dose_noise": 0.2, "metal": 0.5},
    why={
        "mirrors": "a CT mostly shows the trunk, whose organs differ between left and right",
        "contrast": "Hounsfield units mean the same in every scanner, so little may change",
        "dose_noise": "doses differ, and noise grows where the body absorbs more",
        "metal": "implants and fillings cause streaks",
    },
    source="doi:10.1371/journal.pone.0107843",
)
MRI = Profile(
    "MRI",
    ("MR",),
    mirrors="unless",
    changes={**DISPLAY, "blur": 0.5, "low_resolution": 0.5, "bias_field": 0.3, "motion": 2.0, "ghosting": 0.3}
    | {"spikes": 0.3},
    why={
        "mirrors": "most of the anatomy that MRI is used for is symmetric",
        "bias_field": "coils receive more signal from tissue nearby",
        "motion": "people move during minutes of acquisition",
        "ghosting": "pulsation repeats structures along the phase direction",
        "spikes": "a discharge during acquisition causes stripes",
    },
    source="doi:10.1016/j.cmpb.2021.106236",
)
ULTRASOUND = Profile(
    "ultrasound",
    ("US", "IVUS"),
    mirrors="unless",
    changes={**DISPLAY, "blur": 0.7, "low_resolution": 0.5, "bias_field": 0.2, "speckle": 0.1},
    why={
        "mirrors": "the probe may be held either way round",
        "speckle": "echoes of small scatterers interfere, in another pattern with each position of the probe",
        "bias_field": "gain and attenuation change with depth",
        "blur": "the beam widens with depth",
    },
    source="doi:10.1109/TMI.2020.2973595",
)
PHOTOACOUSTIC = Profile(
    "photoacoustic",
    ("PA",),
    mirrors="unless",
    changes={**DISPLAY, "noise": 0.15, "blur": 0.7, "low_resolution": 0.5, "bias_field": 0.3},
    why={
        "mirrors": "the probe may be held either way round",
        "noise": "signals of deep absorbers are weak",
        "bias_field": "light fades with depth, so that equal absorbers do not look alike",
        "blur": "detectors have a band and an angle of their own",
    },
    source="doi:10.1016/j.pacs.2021.100241",
)
MAMMOGRAPHY = Profile(
    "mammography",
    ("MG",),
    mirrors="always",
    changes={"contrast": 0.2, "brightness": 0.1, "gamma": 0.3, "noise": 0.05},
    why={"mirrors": "the other breast is the mirror image"},
    source="doi:10.1038/s41586-019-1799-6",
)
FUNDUS = Profile(
    "fundus photograph",
    ("OP",),
    mirrors="always",
    rotation=30.0,
    changes={"contrast": 0.25, "brightness": 0.2, "gamma": 0.3, "noise": 0.05, "blur": 0.7, "bias_field": 0.2},
    why={
        "mirrors": "the other eye is the mirror image",
        "rotation": "heads and cameras tilt",
        "bias_field": "the flash lights the retina unevenly",
    },
    source="doi:10.1001/jama.2016.17216",
)
OCT = Profile(
    "OCT",
    ("OCT", "OPT", "IVOCT"),
    mirrors="always",
    rotation=10.0,
    changes={"contrast": 0.25, "brightness": 0.15, "gamma": 0.3, "noise": 0.15, "blur": 0.5},
    why={"mirrors": "the other eye is the mirror image", "noise": "coherent light makes speckle"},
    source="doi:10.1016/j.cell.2018.02.010",
)
HISTOPATHOLOGY = Profile(
    "histopathology",
    ("SM",),
    mirrors="always",
    upright=False,
    changes={"contrast": 0.25, "brightness": 0.2, "gamma": 0.2, "noise": 0.05, "blur": 0.7},
    why={
        "mirrors": "a section has no upright orientation and no side",
        "contrast": "stains differ from laboratory to laboratory",
    },
    source="doi:10.1016/j.media.2019.101544",
)
DERMATOLOGY = Profile(
    "dermatology",
    ("XC", "DMS"),
    mirrors="always",
    upright=False,
    changes={"contrast": 0.25, "brightness": 0.2, "gamma": 0.3, "noise": 0.05, "blur": 0.5},
    why={"mirrors": "a lesion has no upright orientation and no side", "brightness": "light and skin differ"},
    source="doi:10.1038/nature21056",
)
ENDOSCOPY = Profile(
    "endoscopy",
    ("ES",),
    mirrors="always",
    upright=False,
    changes={"contrast": 0.25, "brightness": 0.25, "gamma": 0.3, "noise": 0.05, "blur": 1.0},
    why={"mirrors": "the endoscope turns about its axis", "blur": "the endoscope moves"},
    source="doi:10.1016/j.media.2021.102002",
)
PET = Profile(
    "PET",
    ("PT",),
    scheme="uptake",
    mirrors="symmetric",
    changes={"contrast": 0.15, "brightness": 0.1, "gamma": 0.2, "noise": 0.1, "blur": 0.7, "low_resolution": 0.5},
    why={"mirrors": "uptake in heart, liver and spleen differs between left and right", "noise": "counts are few"},
    source="doi:10.1038/s41597-022-01718-3",
)
# Counts have no unit that another scanner shares.
SCINTIGRAPHY = replace(PET, name="scintigraphy", codes=("NM",), scheme="zscore")
MICROSCOPY = Profile(
    "microscopy",
    ("GM",),
    mirrors="always",
    upright=False,
    changes={**DISPLAY, "blur": 0.7},
    why={"mirrors": "a cell has no upright orientation and no side", "blur": "focus differs"},
    source="doi:10.1038/s41592-019-0612-7",
)
SERIES = Profile(
    "a series",
    (),
    rotation=0.0,
    changes={"contrast": 0.25, "brightness": 0.15, "noise": 0.1, "bias_field": 0.1},
    why={
        "mirrors": "time runs one way",
        "contrast": "electrodes, coils and gains differ",
        "brightness": "the baseline lies where the device puts it",
        "bias_field": "the gain drifts",
        "noise": "electrodes and coils differ",
    },
    source="doi:10.1145/3136755.3136817",
)
UNKNOWN = Profile(
    UNKNOWN_MODALITY,
    (UNKNOWN_MODALITY,),
    changes=DISPLAY,
    why={"mirrors": "the kind of image is not known, so left and right may matter"},
    source=NNUNET,
)
PROFILES: Sequence[Profile] = (
    XRAY, CT, MRI, ULTRASOUND, PHOTOACOUSTIC, MAMMOGRAPHY, FUNDUS, OCT, HISTOPATHOLOGY, DERMATOLOGY, ENDOSCOPY, PET,
    SCINTIGRAPHY, MICROSCOPY, UNKNOWN,
)  # fmt: skip


def profile_for(modality: str, axes: int = 0) -> Profile:
    """The profile of DICOM's word for a kind of image; the unknown one for a word that no profile has.

    axes: of the image where they are known; what has one is a series, whatever it was measured with
    """
    if axes == 1:
        return SERIES
    return next((profile for profile in PROFILES if modality in profile.codes), UNKNOWN)
