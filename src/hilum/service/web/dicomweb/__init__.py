"""DICOMweb: store, search and retrieve objects over HTTP (PS3.18 10)."""

from hilum.lazy import lazy_index

lazy_index(__name__)
