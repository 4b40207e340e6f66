"""Is the data set fit to learn from: what is here, what is wrong, who leaks into whom."""

from isocenter.quality.covariates import words_of
from isocenter.quality.examination import Examination, Progress, examine, retested
from isocenter.quality.label_proxies import DISGUISED, is_constant, telling
from isocenter.quality.near_duplicates import Twin
from isocenter.quality.shortcuts import MADE
from isocenter.quality.thumbnail import Look, voxel_digest

__all__ = [
    "DISGUISED",
    "MADE",
    "Examination",
    "Look",
    "Progress",
    "Twin",
    "examine",
    "is_constant",
    "retested",
    "telling",
    "voxel_digest",
    "words_of",
]
