"""A node over HTTP: the API, DICOMweb, health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.web.app import web_app
    from isocenter.service.web.server import run_web, web_listener
    from isocenter.service.web.web_node import WebNode

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
