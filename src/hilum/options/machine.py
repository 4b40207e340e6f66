"""Options of the verbs about this installation and its machine: they import nothing, as scripts ask them first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InfoOptions:
    """List what can be asked for: commands, networks, formats."""


@dataclass(frozen=True)
class DoctorOptions:
    """Say what this machine lacks, and how to get it."""
