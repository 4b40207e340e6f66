"""The cases of a data set from its files. Listed is what is imported at its first use: DICOM takes half a second."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
