"""The doors beside the command line: a page, and tools for agents. What is asked for at them becomes jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.doors import agent_answers, agent_resources, agent_server, agent_tools, keyword_schema
    from isocenter.doors.allowed_paths import AllowedPaths

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
