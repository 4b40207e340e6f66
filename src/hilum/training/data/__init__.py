"""Training data: cases prepared and stored, sampled, loaded, and targets by kind."""

from hilum.lazy import lazy_index

lazy_index(__name__)
