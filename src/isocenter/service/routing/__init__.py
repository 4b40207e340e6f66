"""The choice of the model that answers a series: facts of series, conditions of rules, and reasons."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
