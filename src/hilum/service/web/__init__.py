"""A node over HTTP: the API, DICOMweb, health and metrics."""

from hilum.lazy import lazy_index

lazy_index(__name__)
