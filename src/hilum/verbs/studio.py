"""`studio`: a page for people without a command line."""

from __future__ import annotations

import importlib.util
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hilum import installation, keywords
from hilum.errors import UsageError
from hilum.files.storage import file_lock
from hilum.jobs import Workspace
from hilum.options.doors import StudioOptions
from hilum.work_state import log


@keywords.takes(StudioOptions)
def studio(options: StudioOptions) -> None:
    """Serve the page on this machine until Ctrl-C. Jobs go on; the next start shows them.

    Raises UsageError without the extra `studio`, for a workspace that cannot be written or has a studio already, for a
    root that is not there, and for a port that is taken.
    """
    absent = [one for one in ("fastapi", "uvicorn", "jsonschema") if importlib.util.find_spec(one) is None]
    if absent:
        raise UsageError(f"{absent[0]} is not installed", "hilum studio", installation.install_line("studio"))
    from hilum.doors import AllowedPaths, JobDesk, WarmProcess, loopback, studio_server

    workspace, say = Workspace.open(Path(options.workspace), options.parallel), options.say or log.info
    roots = [Path(one) for one in options.roots] or [Path.cwd()]
    desk = JobDesk(workspace, AllowedPaths.below(roots, workspace.folder), "studio")
    with _only_studio(workspace):
        warm = WarmProcess("hilum.verbs.studio_answers", workspace.folder)
        page, listener = studio_server.Studio(desk, warm), loopback.listen(options.port)
        address = f"http://{loopback.HOST}:{listener.getsockname()[1]}/{page.token}"
        say(address)
        if not options.no_browser:
            open_browser(address)
        try:
            loopback.serve(loopback.LocalOnly(studio_server.studio_app(page)), listener)
        finally:
            page.warm.close()


@contextmanager
def _only_studio(workspace: Workspace) -> Iterator[None]:
    """This studio alone works with the workspace. UsageError, which names the process, for a second one."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock.hold_lock(workspace.folder / "studio"))
        except UsageError as error:
            problem = error.problem.replace("has been writing it", "has shown it as a page")
            remedy = "Use the page that is open, or give another WORKSPACE"
            raise error.stating(problem=problem, where=str(workspace.folder), remedy=remedy) from error
        yield


def open_browser(address: str) -> None:
    """Show a page in the person's browser; without one the printed address is enough."""
    try:
        if not webbrowser.open(address):
            log.warning("there is no browser to open: go to the address above")
    except (webbrowser.Error, OSError) as error:
        log.warning("no browser could be opened (%s): go to the address above", error)
