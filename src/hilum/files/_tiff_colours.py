"""The colours of a TIFF page whose strips or tiles are JPEG: of tag and stream, the one that decoders believe.

The page's tag shall say what the stream holds (Adobe's TIFF Technical Note 2), and libtiff and OpenSlide go by it.
Some writers (Bio-Formats, QuPath) call luminance with chrominance RGB: there the stream is believed where it has JFIF,
as by tifffile, or chrominance that is coarser, which red, green and blue never are and libtiff refuses. Under a tag of
YCBCR a stream that says it is RGB is believed, as by tifffile; libtiff does not look.
"""

from __future__ import annotations

import tifffile

from hilum.files import _picture_streams
from hilum.files._picture_streams import MODELS, OF_ADOBE, RGB, YCBCR

COMPRESSION, PHOTOMETRIC = tifffile.COMPRESSION, tifffile.PHOTOMETRIC
JPEG = (COMPRESSION.JPEG, COMPRESSION.ALT_JPEG)
TAGS: dict[int, str] = {PHOTOMETRIC.RGB: RGB, PHOTOMETRIC.YCBCR: YCBCR}
SAMPLES = 3  # of a pixel in colour
STREAM_HEAD = 1 << 16


def settle(page: tifffile.TiffPage) -> tuple[str, ...]:
    """Have a page decoded by the statement that is believed; the note where tag and stream differ."""
    tag = TAGS.get(page.photometric)
    if tag is None or page.compression not in JPEG or page.samplesperpixel != SAMPLES or not page.dataoffsets:
        return ()
    if page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
        return ()
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0])
    start = file.read(min(page.databytecounts[0], STREAM_HEAD))
    try:
        stated = _picture_streams.stated_colours(start)
    except ValueError:  # decoding refuses it
        return ()
    if stated is None or stated.model == tag:
        return ()
    is_tag_believed = tag == RGB and stated.where == OF_ADOBE
    if not is_tag_believed:
        page.is_jfif = True  # the library then lets the stream decide
    believed = "tag" if is_tag_believed else "stream"
    colours = f"{MODELS[stated.model]} ({stated.where})"
    return (f"its tag states {tag} and its JPEG stream {colours}: the {believed} is believed",)
