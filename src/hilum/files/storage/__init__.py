"""Files on disk: written whole or not at all, cached, downloaded, hashed, spooled, read in blocks."""

from hilum.lazy import lazy_index

lazy_index(__name__)
