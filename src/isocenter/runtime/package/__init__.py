"""Packages: a model as a MONAI bundle that runs without Isocenter, and that Isocenter loads."""

from isocenter.lazy import lazy_index

lazy_index(__name__)
