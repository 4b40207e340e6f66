"""NIfTI-1, NIfTI-2 and Analyze 7.5."""

from hilum.lazy import lazy_index

lazy_index(__name__)
