"""A node over HTTP: the API, DICOMweb, health and metrics."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
