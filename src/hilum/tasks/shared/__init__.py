"""Parts of several kinds of problem: losses, label handling, operating points, averages, common metrics."""

from hilum.lazy import lazy_index

lazy_index(__name__)
