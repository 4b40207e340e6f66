"""Explanations of cases, for `evaluate`, which loads torch and captum only where somebody asks for maps."""

from hilum.lazy import lazy_index

lazy_index(__name__)
