"""Commands as processes of their own, in a workspace: what the page and the tools for agents start, watch and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.jobs import job_process, job_record
    from hilum.jobs.job_record import CommandJob, JobState
    from hilum.jobs.workspace import JobRequest, Workspace

lazy_index(__name__)
