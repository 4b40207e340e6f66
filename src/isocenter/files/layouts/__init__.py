"""Layouts of data sets: one file a layout, its line in `LAYOUTS` of `layout.py`."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
