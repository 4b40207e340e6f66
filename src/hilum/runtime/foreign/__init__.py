"""Models of other programs, read as they are and used as their makers use them."""

from hilum.lazy import lazy_index

lazy_index(__name__)
