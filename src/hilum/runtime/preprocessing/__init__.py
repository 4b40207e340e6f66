"""Preprocessing: an image as it was read to the network's input, and outputs back onto the image's own grid."""

from hilum.lazy import lazy_index

lazy_index(__name__)
