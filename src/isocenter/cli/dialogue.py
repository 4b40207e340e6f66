"""Verbs that speak, ask or wait at the terminal while they work."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import typer

import isocenter
from isocenter import errors
from isocenter.cli import terminal

PASSWORD = "ISOCENTER_PASSWORD"  # noqa: S105 - the name of a variable


def serve_until_signal(**options: Any) -> None:
    """A node until a signal ends it, or nothing but a look at its settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = isocenter.serve(**options)
    if options["check"]:
        for warning in node.warnings:
            terminal.say(f"warning: {warning}", err=True)
        terminal.say(f"{options.get('config') or 'the settings'}, the models and the ports are in order")
        return
    with node:
        if not node.settings.models:
            terminal.say("no model is given: studies are kept but not answered", err=True)
        terminal.say(f"ready: {', '.join(node.places)}")
        node.wait(stop)


def show_demo(**options: Any) -> None:
    """The demonstration, which prints its own lines."""
    isocenter.demo(**options, say=terminal.say)


def export_and_count(**options: Any) -> None:
    """The events in a file, and their number."""
    terminal.say(f"{errors.count_phrase(isocenter.export_audit(**options), 'event')} in {options['out']}")


def ask_and_roll_back(**options: Any) -> object:
    """A change taken back, once the account's password is known."""
    if "account" in options:
        password = os.environ.get(PASSWORD)
        options["password"] = typer.prompt("Password", hide_input=True, err=True) if password is None else password
    return isocenter.roll_back_change(**options)


def join_and_ask(**options: Any) -> object:
    """A site of a federation, where a person is shown the plan and may refuse it."""

    def agrees(plan: str) -> bool:
        terminal.say(plan, err=True)
        return typer.confirm("Take part by this plan?", err=True)

    return isocenter.join_federation(**options, ask=agrees)


def serve_agents(**options: Any) -> None:
    """Tools for agents until their end is closed, or Ctrl-C."""
    isocenter.mcp(**options, say=terminal.say)


def serve_studio(**options: Any) -> None:
    """The page until Ctrl-C; its address is the first line."""
    isocenter.studio(**options, say=terminal.say)
