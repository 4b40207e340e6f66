"""Who does something at a node: a person, a machine, or the node itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """Whoever asks for something, or does it.

    account: its name; that of a machine's token begins with MACHINE; empty for whoever has not logged in
    role:    one of those of `hilum.service.web.access`; empty where nothing but open pages may be asked for
    address: of its machine, as the node sees it
    """

    account: str
    role: str
    address: str = ""


# Roles of people who read studies and judge results.
READERS = ("radiologist", "administrator")
MACHINE = "token "  # before the name of a machine's token
NODE = Actor("node", "service")
# Whoever works at this machine, as long as the node has no account.
ANYONE = Actor("", "administrator")
