"""Writing DICOM: image series, segmentations, structured reports."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
