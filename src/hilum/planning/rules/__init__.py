"""The rules of planning: one file for each group of decisions."""

from hilum.lazy import lazy_index

lazy_index(__name__)
