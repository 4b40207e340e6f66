"""The work of a node: jobs claimed, models kept warm, answers written."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
