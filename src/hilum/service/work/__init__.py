"""The work of a node: jobs claimed, models kept warm, answers written."""

from hilum.lazy import lazy_index

lazy_index(__name__)
