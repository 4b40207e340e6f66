"""The transfer syntaxes of compressed pixels, by the coder that they need. PS3.5 A.4 and A.5"""

from __future__ import annotations

from pydicom import uid

DEFLATED_IMAGE_FRAME = uid.UID("1.2.840.10008.1.2.8.1")
JPEG_XL = frozenset(uid.UID(f"1.2.840.10008.1.2.4.{n}") for n in (110, 111, 112))
JPEG = frozenset((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1))
JPEG_LS = frozenset((uid.JPEGLSLossless, uid.JPEGLSNearLossless))
JPEG_2000 = frozenset(
    (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
)  # OpenJPEG 2.5 reads the high-throughput block coder too
# PS3.5 8.2.5 to 8.2.8: MPEG-2, H.264 and HEVC, plain and fragmentable
VIDEO = frozenset(
    uid.UID(f"1.2.840.10008.1.2.4.{n}{suffix}")
    for n in range(100, 109)
    for suffix in (("", ".1") if n < 107 else ("",))
)
