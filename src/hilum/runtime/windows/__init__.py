"""Sliding windows over an image of any size, merged by weights, in bounded memory."""

from hilum.lazy import lazy_index

lazy_index(__name__)
