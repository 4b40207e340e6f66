"""Layouts of data sets: one file a layout, its line in `LAYOUTS` of `layout.py`."""
