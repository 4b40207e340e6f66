"""Picture formats. Listed is what is imported at its first use: few data sets have pictures to decode or to turn."""

from hilum.lazy import lazy_index

lazy_index(__name__)
