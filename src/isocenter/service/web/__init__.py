"""A node over HTTP: the API, DICOMweb, health and metrics."""
