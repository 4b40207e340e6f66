"""The words by which names of files and folders are understood: one table, which all layouts use.

A new convention is a word here, with an example of it in docs/layouts.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hilum.values import Split

# Parts of a data set.
SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "calibration": "calibration",
    **dict.fromkeys(("test", "testing"), "test"),
}
# In names of folders also what is parted again by whoever trains.
PART_WORDS: dict[str, Split] = {**SPLIT_WORDS, "trainval": "train"}
# Words beside that of a part in the name of its folder: training_set, b. Testing Set, trainset; and words with which a
# folder holds the images or the masks of a part, not all of it.
OF_A_PART = ("dataset", "data", "set", "part", "folder", "samples", "split", "cases")
OF_ONE_KIND = re.compile(r"image|img|input|photo|scan|picture|mask|label|truth|annot|segment|\bgt\b|\bseg\b")
# A folder of one kind of files of a part: train_labels, trainannot, GT-test.
_PARTS = "|".join(sorted(PART_WORDS, key=len, reverse=True))
KIND_OF_PART = re.compile(
    rf"(?i)^(?:(?P<part>{_PARTS})[_\-. ]*(?P<kind>[a-z].*)|(?P<before>[a-z].*?)[_\-. ]*(?P<last>{_PARTS}))$"
)
# A part that some use to choose by, and others to test by, so that it is no word for either.
EVALUATION = re.compile(r"(?i)evaluation|eval")
# Folders of images or labels that are a part, of nnU-Net, the Decathlon, AMOS and WORD.
PARTS: Mapping[str, Split] = {
    **dict.fromkeys(("imagesva", "labelsva", "imagesval", "labelsval"), "val"),
    **dict.fromkeys(("imagests", "labelsts"), "test"),
}
# Folders that part a set, and are no classes: HAM10000_images_part_1, batch2; LabeledData; train_images, images-test;
# target_validation of a domain.
_PART, _IMAGES = f"(?:{'|'.join(SPLIT_WORDS)})", "(?:images?|imgs?)"
NO_CLASSES = re.compile(
    r"(?i)(?:part|pt|batch|chunk|fold|subset|images?|imgs?)[_\- ]?\d+$"
    r"|^(?:un)?label+ed(?:[_\- ]?(?:data|images?|set|cases?).*)?$"
    rf"|^(?:{_PART}[_\- ]?{_IMAGES}|{_IMAGES}[_\- ]?{_PART})$"
    r"|[_\- ](?:training|validation|testing)$"
)
# Likewise, of cases by their numbers: 1-200.
RANGE = re.compile(r"\d+ ?[-_] ?\d+$")

# Images: a folder by its whole name or its end, a file by its only, first or last word.
IMAGES = {"images", "image", "imgs", "img", "imagestr", "imagesva", "imagesval", "imagests"}
IMAGE_NAME = re.compile(r"(?i)(?:image|img|input|photo|scan)s?$")
_SHOWN = "image|img|im|scan|volume|vol"
IMAGE_WORD = re.compile(r"(?i)^(?:image|img|imaging|scan|volume|vol)$")
IMAGE_SUFFIX = re.compile(rf"(?i)[_.\- ](?:{_SHOWN}|original|orig|input)$")
IMAGE_PREFIX = re.compile(rf"(?i)^(?:{_SHOWN}|original|orig|input)[_.\- ]")

# Targets: the image that another should become, in a folder of theirs or marked by a suffix.
TARGETS = {"targets"}
TARGET_SUFFIX = re.compile(r"(?i)[_.\- ]target$")

# Masks: likewise; a word of MANY_LABELS is no class's, as "mask" may be.
LABELS = {
    "labels", "label", "masks", "mask", "labelstr", "labelsva", "labelsval", "labelsts",
    "segmentations", "segmentation", "seg",
    "annotations", "annotation", "annots", "annot", "ground_truth", "groundtruth", "gts", "gt", "structures",
}  # fmt: skip
MANY_LABELS = {"labels", "masks", "labelstr", "segmentations", "annotations"}
LABEL_NAME = re.compile(r"(?i)(?:mask|ground[_\- ]?truth|segmentation|annotation)s?$|^segmentationclass(?:png)?$")
# Anywhere in the name of a folder, as in Training_GroundTruth_v3.
WORD_OF_MASKS = re.compile(
    r"(?i)(?<![a-z])(?:masks?|ground[_\- ]?truths?|segmentations?|annotations?|labels)(?![a-z])|"
    rf"{LABEL_NAME.pattern.removeprefix('(?i)')}"
)
MASK_WORDS = "mask|masks|msk|seg|segm|segmentation|label|labels|gt|groundtruth|annotation|anno|roi"
MASK_SUFFIX = re.compile(rf"(?i)[_.\- ](?:{MASK_WORDS})(?:[_\- ]?\d+)?$")
MASK_PREFIX = re.compile(rf"(?i)^(?:{MASK_WORDS})[_.\- ]")
NUMBERED_MASK = re.compile(rf"(?i)^(?:{MASK_WORDS})[_.\- ]?(?P<base>\d.*)$")
# A mask in the folder of its case: the word alone, after the structure (liver_mask) or before it (mask_liver).
MASK_NAME = re.compile(
    rf"(?i)^(?:(?P<before>.+?)[_.\- ])?(?:{MASK_WORDS})(?:[_\- ]?\d+)?$"
    rf"|^(?:{MASK_WORDS})[_.\- ](?P<after>[a-z].*)$"
)
# img0001 and label0001: the rest is what both have in common.
PREFIX = re.compile(rf"(?i)^(?:{_SHOWN}|{MASK_WORDS})[_\- ]?(?=\d)")
# The last word of a mask's name, which may repeat its structure: x_MA in a folder of microaneurysms.
LAST_WORD = re.compile(r"[_.\- ]([A-Za-z]+)$")
# What only orders folders: "1. " of "1. Microaneurysms".
ORDER = re.compile(r"^\d+[.)]\s*")

# Readers, at the end of a mask's name or as the folder in which it lies.
READER = (
    r"(?:1st|2nd|3rd|[4-9]th)(?:[_-]?(?:HO|observer|manual))?|(?:manual|observer|rater|expert|reader|annotator)[_-]?\d+"
)
READER_SUFFIX = re.compile(rf"(?i)[_.\- ]({READER})$")
READER_FOLDER = re.compile(rf"(?i)^(?:{READER}|(?:observer|rater|expert|reader|annotator|radiologist)[_-]?[a-z\d]+)$")
MASK_OR_READER = re.compile(rf"(?i)^(?P<base>.+?)[_.\- ](?:(?:{MASK_WORDS})(?:[_\- ]?\d+)?|(?P<observer>{READER}))$")
# Who contoured by hand, where a folder is named so; what `mask` beside it shows is where the camera saw anything.
BY_HAND = re.compile(r"(?i)^(?:(?:1st|2nd|3rd|[4-9]th)[_\- ]?)?manual(?:[_\- ]?\d+)?$")
FIELD_OF_VIEW = {"mask", "masks", "fov"}

# Channels: nnU-Net's case_0000, case_0001; and the case and the first or last word of x_t1 or t1_x.
CHANNEL = re.compile(r"_(\d{4})$")
_WORD = r"(?P<word>[A-Za-z][A-Za-z\d]*)"
WORD_OF_CASE = (re.compile(rf"^(?P<case>.+?)[_.\- ]+{_WORD}$"), re.compile(rf"^{_WORD}[_.\- ]+(?P<case>.+)$"))
WORDS = re.compile(r"[\W_]+")
# Sides of a pair for registration.
SIDE = re.compile(r"(?i)^(?P<case>.+?)[_.\- ](?P<side>fixed|moving)[_.\- ](?P<what>image|labels?|mask|points)$")

# Names of folders that hold images in one format each, as in CVC-ClinicDB, and the end of that of a case: x_nifti.
FORMAT_FOLDERS = frozenset(
    {"png", "tif", "tiff", "jpg", "jpeg", "bmp", "nii", "nifti", "dcm", "dicom", "nrrd", "mha", "mhd"}
)
FORMAT_ENDING = re.compile(rf"(?i)[_.\- ](?:{'|'.join(sorted(FORMAT_FOLDERS))})$")

# Words for views, times, versions and places, by which folders of the same people or parts of a set are called.
SELDOM_CLASSES = re.compile(
    r"(?i)(?:axial|ax|coronal|cor|sagittal|sag|transvers(?:e|al)|frontal|lateral|ap|pa|cc|mlo|left|right|od|os|"
    r"arterial|venous|portal|delayed|native|pre|post|before|after|baseline|follow[_\- ]?up|"
    r"raw|original|processed|preprocessed|augmented|cropped|resized|enhanced|"
    r"(?:site|cent(?:er|re)|hospital|clinic|cohort|dataset|ds|scanner|vendor|session|visit)[_\- ]?[a-z\d]{0,2})"
)
# Where annotation files look for their images, beside their own folder.
NEIGHBOURS = ("JPEGImages", "images", "imgs", "")
