"""Registration of the frames of a series."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
