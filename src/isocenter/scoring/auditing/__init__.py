"""Further looks at scored cases: groups, decisions, robustness, errors, explanations."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
