"""Parts of `compress`: cases and their roles, quantised files, what a variant costs, and the page."""

from hilum.lazy import lazy_index

lazy_index(__name__)
