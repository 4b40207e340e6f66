"""One function over many cases: in threads, in processes that may die, or on a dask cluster."""
