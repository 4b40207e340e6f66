"""Commands as processes of their own, in a workspace: what the page and the tools for agents start, watch and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.jobs import job_process, job_record
    from isocenter.jobs.job_record import CommandJob, JobState
    from isocenter.jobs.workspace import JobRequest, Workspace

lazy_index(__name__)
