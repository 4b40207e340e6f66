"""The uncertainty of a model's answers, and the part of it in which several views of an image disagree."""

from hilum.lazy import lazy_index

lazy_index(__name__)
