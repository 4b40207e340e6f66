"""Layouts of other programs' weights. A new one is a file in this folder and its line in `LAYOUTS` of `index.py`."""

from hilum.lazy import lazy_index

lazy_index(__name__)
