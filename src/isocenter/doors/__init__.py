"""The doors beside the command line: a page, and tools for agents. What is asked for at them becomes jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.doors import (
        agent_answers,
        agent_server,
        agent_tools,
        keyword_schema,
        loopback,
        plan_controls,
        studio_server,
        warm_process,
    )
    from isocenter.doors.allowed_paths import AllowedPaths
    from isocenter.doors.job_desk import JobDesk
    from isocenter.doors.warm_process import WarmProcess

lazy_index(__name__)
