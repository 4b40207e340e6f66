"""`mcp`: the commands as tools of agents."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hilum import installation, keywords
from hilum.errors import UsageError
from hilum.jobs import Workspace
from hilum.options.doors import McpOptions
from hilum.work_state import log


@keywords.takes(McpOptions)
def mcp(options: McpOptions) -> None:
    """Answer agents until their end is closed.

    Raises UsageError without the extra `agents`, for a workspace that cannot be written, for a root that is not there,
    and for a port that is taken.
    """
    if importlib.util.find_spec("mcp") is None or importlib.util.find_spec("jsonschema") is None:
        raise UsageError("mcp is not installed", "hilum mcp", installation.install_line("agents"))
    from hilum.doors import AllowedPaths, agent_server
    from hilum.doors.agent_tools import AgentDesk

    workspace = Workspace.open(Path(options.workspace), options.parallel)
    roots = [Path(one) for one in options.roots] or [Path.cwd()]
    desk = AgentDesk(workspace, AllowedPaths.below(roots, workspace.folder), "mcp", options.minutes_limit)
    if options.http:
        agent_server.serve_http(desk, options.port, options.say or log.info)
    else:
        agent_server.serve_pipes(desk)
