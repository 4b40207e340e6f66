"""The gate: whether an image is of the kind that trained the model."""

from isocenter.lazy import lazy_index

lazy_index(__name__)
