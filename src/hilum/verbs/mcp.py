"""`mcp`: the commands as tools of agents."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from hilum import installation, keywords
from hilum.errors import UsageError
from hilum.jobs import Workspace
from hilum.options.doors import McpOptions
from hilum.values import personal_columns
from hilum.work_state import log


@keywords.takes(McpOptions)
def mcp(options: McpOptions) -> None:
    """Answer agents until their end is closed.

    Raises UsageError without the extra `agents`, for a workspace that cannot be written, for a root that is not there,
    for a column to be shown that says who somebody is, and for a port that is taken.
    """
    if importlib.util.find_spec("mcp") is None or importlib.util.find_spec("jsonschema") is None:
        raise UsageError("mcp is not installed", "hilum mcp", installation.install_line("agents"))
    from hilum.doors import AllowedPaths, agent_server
    from hilum.doors.agent_answers import Patients
    from hilum.doors.agent_tools import AgentDesk

    workspace = Workspace.open(Path(options.workspace), options.parallel)
    roots = [Path(one) for one in options.roots] or [Path.cwd()]
    columns = [options.show_columns] if isinstance(options.show_columns, str) else options.show_columns
    _refuse_identities(columns)
    patients = Patients(columns)
    allowed = AllowedPaths.below(roots, workspace.folder)
    desk = AgentDesk(workspace, allowed, "mcp", options.minutes_limit, patients=patients)
    if options.http:
        agent_server.serve_http(desk, options.port, options.say or log.info)
    else:
        agent_server.serve_pipes(desk)


def _refuse_identities(columns: Sequence[str]) -> None:
    """Raise UsageError for a column that says who somebody is, which no agent reads."""
    for column in columns:
        kind = personal_columns.kind_of_column(column)
        if kind is not None and kind != personal_columns.FREE_TEXT:
            problem = f"the column {column} says who somebody is ({kind})"
            raise UsageError(
                problem, "--show-column", "Leave it out, or give the column another name where it does not"
            )
