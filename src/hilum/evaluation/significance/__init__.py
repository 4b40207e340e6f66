"""Tests of differences between models: areas, calls, means, readers, margins."""

from hilum.lazy import lazy_index

lazy_index(__name__)
