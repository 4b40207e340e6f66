"""The parity certificate: each backend compared with torch on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.certificate.certification import certify

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
