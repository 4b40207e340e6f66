"""The gate: whether an image is of the kind that trained the model."""

from hilum.lazy import lazy_index

lazy_index(__name__)
