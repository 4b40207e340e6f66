"""Classification: classes that exclude each other, or grades, for the whole image."""

from hilum.lazy import lazy_index

lazy_index(__name__)
