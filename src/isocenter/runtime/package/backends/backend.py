"""The protocol of a backend, which computes a packaged model's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from isocenter.runtime.windows.slide import Network


class Backend(Protocol):
    """One way to compute the network of a package.

    name:     as `--backend` calls it
    packages: distributions whose versions decide what it computes, for the certificate
    precision: "float32" or "bfloat16", which decides the tolerances that it is held to
    """

    name: str
    packages: tuple[str, ...]
    precision: str

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device here, with the remedy; None where it can."""

    def files(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The files of a package that it reads, which the manifest has to list.

        record: `isocenter/model.json`
        Raises UsageError for a package without them.
        """

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a package that is verified; of several the mean.

        threads: cores to use; all that this process may use if none is given
        """
