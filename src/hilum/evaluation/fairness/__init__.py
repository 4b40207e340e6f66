"""Groups of people, and how far a model's figures lie apart among them."""

from hilum.lazy import lazy_index

lazy_index(__name__)
