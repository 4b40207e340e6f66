"""`networks`: the families of network that a plan may name."""

from __future__ import annotations

from isocenter.networks import names


def list_networks() -> tuple[str, ...]:
    """The names for `network.name` in a plan."""
    return names()
