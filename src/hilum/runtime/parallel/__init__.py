"""One function over many cases: in threads, in processes that may die, or on a dask cluster."""

from hilum.lazy import lazy_index

lazy_index(__name__)
