"""The choice of the model that answers a series: facts of series, conditions of rules, and reasons."""

from hilum.lazy import lazy_index

lazy_index(__name__)
