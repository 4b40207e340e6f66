"""Options of the doors beside the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from hilum.values import Setting

WorkspaceFolder = Annotated[
    str | Path, Setting("Folder of jobs and results; made where it is new. By default ./workspace.", "WORKSPACE")
]
Roots = Annotated[
    Sequence[str | Path],
    Setting("Folder that may be read; repeatable. By default the working folder.", "FOLDER", "--root", repeats=True),
]
Port = Annotated[int, Ge(0), Le(65535), Setting("Port on this machine; 0: any that is free.", "PORT")]
Parallel = Annotated[int, Ge(1), Setting("Number of long commands that run at a time.", "N")]


@dataclass(frozen=True)
class McpOptions:
    """Give agents the commands as tools (MCP).

    say: gets the address of --http; by default it is logged
    """

    workspace: WorkspaceFolder = "workspace"
    _: KW_ONLY
    roots: Roots = ()
    minutes_limit: Annotated[float, Ge(0), Setting("Longest training that an agent may start, in minutes.", "M")] = 60.0
    parallel: Parallel = 1
    show_columns: Annotated[
        Sequence[str],
        Setting(
            "Column whose text agents may read, by its name; repeatable. Text of unknown columns is left out.",
            "COLUMN",
            "--show-column",
            repeats=True,
        ),
    ] = ()
    http: Annotated[bool, Setting("Answer over HTTP on this machine, in place of standard input and output.")] = False
    port: Port = 0
    say: Callable[[str], None] | None = None


@dataclass(frozen=True)
class StudioOptions:
    """Open a page to check, plan, train and use models.

    say: gets the address of the page; by default it is logged
    """

    workspace: WorkspaceFolder = "workspace"
    _: KW_ONLY
    roots: Roots = ()
    port: Port = 0
    parallel: Parallel = 1
    no_browser: Annotated[bool, Setting("Print the address, and open no browser.")] = False
    say: Callable[[str], None] | None = None
