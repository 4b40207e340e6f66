"""The scripts of a package, which run a model without Hilum, and the torch modules around its networks.

The files of this folder are copied into packages, with all that they import of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.runtime.bundle import network

lazy_index(__name__)
