"""Reading DICOM: series, frames, pixels, values, segmentations, structure sets, structured reports."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
