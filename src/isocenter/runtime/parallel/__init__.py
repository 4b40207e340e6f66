"""One function over many cases: in threads, in processes that may die, or on a dask cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.parallel.dask_cluster import Cluster
    from isocenter.runtime.parallel.map_cases import Spread, in_threads, in_workers, local, outcome_of

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
