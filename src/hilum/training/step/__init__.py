"""One training step: its loss, its arithmetic, the optimiser and the average of weights."""

from hilum.lazy import lazy_index

lazy_index(__name__)
