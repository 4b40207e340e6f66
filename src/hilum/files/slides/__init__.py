"""Slides: pictures in levels, read tile by tile, one file a kind. Listed is what is imported at its first use."""

from hilum.lazy import lazy_index

lazy_index(__name__)
