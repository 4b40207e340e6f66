"""SOP classes of objects that state results, PS3.4 B.5: known without loading a library."""

from __future__ import annotations

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SPATIAL_REGISTRATION, DEFORMABLE_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
ENCAPSULATED_STL, ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.3", "1.2.840.10008.5.1.4.1.1.104.1"
PRESENTATION, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.7"
# Reports that findings are read from: Enhanced, Comprehensive, Comprehensive 3D and Extensible SR, and those of CAD for
# mammography, chest and colon.
CAD = ("1.2.840.10008.5.1.4.1.1.88.50", "1.2.840.10008.5.1.4.1.1.88.65", "1.2.840.10008.5.1.4.1.1.88.69")
REPORT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.88.35",
    *CAD,
)
