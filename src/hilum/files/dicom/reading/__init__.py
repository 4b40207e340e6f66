"""Reading DICOM: series, frames, pixels, values, segmentations, structure sets, structured reports."""

from hilum.lazy import lazy_index

lazy_index(__name__)
