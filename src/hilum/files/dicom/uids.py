"""Words that are known without loading a library: transfer syntaxes by their coder, SOP classes of results, our name.

PS3.5 A.1 to A.5; PS3.6 A
"""

from __future__ import annotations

# Manufacturer of whatever this program writes.
MAKER = "Hilum"
_BASE = "1.2.840.10008.1.2"
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = _BASE, f"{_BASE}.1", f"{_BASE}.1.99", f"{_BASE}.2"
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
RLE = f"{_BASE}.5"
DEFLATED_IMAGE_FRAME = f"{_BASE}.8.1"
JPEG = frozenset(f"{_BASE}.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS = frozenset(f"{_BASE}.4.{n}" for n in (80, 81))
# Those from 201 on have the high-throughput block coder, which OpenJPEG 2.5 reads too.
JPEG_2000 = frozenset(f"{_BASE}.4.{n}" for n in (90, 91, 201, 202, 203))
JPEG_XL = frozenset(f"{_BASE}.4.{n}" for n in (110, 111, 112))
MARKED = JPEG | JPEG_LS | JPEG_2000  # streams whose markers state their size, and where they end
CODED = MARKED | JPEG_XL | {RLE, DEFLATED_IMAGE_FRAME}
# PS3.5 8.2.5 to 8.2.8: MPEG-2, H.264 and HEVC, plain and fragmentable
VIDEO = frozenset(f"{_BASE}.4.{n}{suffix}" for n in range(100, 109) for suffix in (("", ".1") if n < 107 else ("",)))


SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SPATIAL_REGISTRATION, DEFORMABLE_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
ENCAPSULATED_STL, ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.3", "1.2.840.10008.5.1.4.1.1.104.1"
PRESENTATION, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.7"
# CT, MR and PET images, as series that are computed from others consist of.
DERIVED_SERIES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.128",
)
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
