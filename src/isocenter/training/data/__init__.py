"""Training data: cases prepared and stored, sampled, loaded, and targets by kind."""

from isocenter.lazy import lazy_index

lazy_index(__name__)
