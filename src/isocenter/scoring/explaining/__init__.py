"""Explanations of cases, for `evaluate`, which loads torch and captum only where somebody asks for maps."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
