"""The doors beside the command line: a page, and tools for agents. What is asked for at them becomes jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.doors import (
        agent_answers,
        agent_server,
        agent_tools,
        doubted_cases,
        keyword_schema,
        loopback,
        plan_controls,
        studio_server,
        warm_process,
    )
    from hilum.doors.allowed_paths import AllowedPaths
    from hilum.doors.job_desk import JobDesk
    from hilum.doors.warm_process import WarmProcess

lazy_index(__name__)
