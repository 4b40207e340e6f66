"""A format: eight letters, then the pixels of a grey picture of 16 x 16."""

import numpy as np

from hilum.errors import FormatError
from hilum.files.format_options import Format, FormatEntry
from hilum.values import Geometry, Image

MAGIC = b"TINYIMG1"
SHAPE = (16, 16)


def read(path, options):
    """All volumes of a file by name; a picture without known spacing lies in pixels."""
    content = path.read_bytes()
    if len(content) != len(MAGIC) + SHAPE[0] * SHAPE[1]:
        raise FormatError(f"{len(content)} bytes are no picture of 16 x 16", str(path), "Get the file again")
    pixels = np.frombuffer(content, np.uint8, offset=len(MAGIC)).reshape(1, *SHAPE)
    return {"image": Image(pixels, Geometry.of_pixels(SHAPE))}


def write(image, path):
    path.write_bytes(MAGIC + image.data.astype(np.uint8).tobytes())


FORMAT = Format("tinyimage", read, write)
ENTRY = FormatEntry("foreign.format:FORMAT", (".tiny",), ((0, MAGIC),))  # suffixes, and first bytes at their place
