"""The length of a training: steps from minutes, measured by a probe, and the schedule that follows them."""

from hilum.lazy import lazy_index

lazy_index(__name__)
