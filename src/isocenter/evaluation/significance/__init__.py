"""Tests of differences between models: areas, calls, means, readers, margins."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
