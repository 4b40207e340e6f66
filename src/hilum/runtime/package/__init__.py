"""Packages: a model as a MONAI bundle that runs without Hilum, and that Hilum loads."""

from hilum.lazy import lazy_index

lazy_index(__name__)
