"""Further looks at scored cases: groups, decisions, robustness, errors, explanations."""

from hilum.lazy import lazy_index

lazy_index(__name__)
