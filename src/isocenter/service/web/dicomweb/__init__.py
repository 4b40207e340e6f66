"""DICOMweb: store, search and retrieve objects over HTTP (PS3.18 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.web.dicomweb.multipart import MultipartReader, boundary_of
    from isocenter.service.web.dicomweb.retrieve import router as retrieve_router
    from isocenter.service.web.dicomweb.search import router as search_router
    from isocenter.service.web.dicomweb.store import router as store_router

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
