"""Monitoring of the models that a node runs, and what an alert does to them."""

from hilum.lazy import lazy_index

lazy_index(__name__)
