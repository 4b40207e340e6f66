"""The page for people without a command line: its routes on this machine, for whoever has the address."""

from __future__ import annotations

import base64
import csv
import hmac
import io
import json
import mimetypes
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from hilum.doors import doubted_cases, keyword_schema
from hilum.doors.job_desk import JobDesk
from hilum.doors.warm_process import WarmProcess
from hilum.errors import HilumError, UsageError
from hilum.files.storage import csv_text, structured_text
from hilum.files.storage.csv_text import CsvWriter
from hilum.jobs import job_record
from hilum.options import command_index
from hilum.options.command_index import COMMANDS, CommandValues
from hilum.report import slice_viewer
from hilum.service.reading.label_strokes import Stroke
from hilum.values.plain_values import PlainValue

DOCUMENT = "studio.html"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# No script, style, picture or connection but this server's, in nobody's frame; reports are shown without its origin.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
REPORT_POLICY = "sandbox allow-scripts allow-popups"
MOST_UPLOAD, MOST_CASES, MOST_FOLDERS = 4 << 30, 20_000, 500
Values = Annotated[CommandValues, Body()]
# Files by which the folder of a run is known, and those of what it came to.
MARKS = ("plan.yaml", "split.csv")
SUMMARY, REPORT = "evaluation/summary.json", "report.html"
Strokes = Annotated[list[Stroke], Body(embed=True, min_length=1)]


@dataclass(frozen=True)
class Studio:
    """What the page works with: what may be asked for, and the process that answers at once."""

    desk: JobDesk
    warm: WarmProcess
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def place(self, path: str) -> Path:
        """A file that the page may show. UsageError for one outside the allowed folders."""
        self.desk.paths.refuse_outside(path, path[:200])
        return self.desk.paths.start / path


@dataclass(frozen=True)
class EditedTable:
    """A table as the page sends it back: path is that of the file which was edited."""

    path: str
    head: list[str]
    rows: list[list[str]]


def studio_app(studio: Studio) -> ASGIApp:
    """The application of the page."""
    app = FastAPI(title="Hilum studio", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(HilumError, _refusal)
    for kind in (RequestValidationError, OSError, ValueError):  # the last for a path with a zero byte
        app.add_exception_handler(kind, _misfit)
    app.add_exception_handler(HTTPException, _refusal_of_http)
    _add_pages(app)
    _add_jobs(app, studio)
    _add_data(app, studio)
    add_routes(app, studio.desk.workspace.folder, studio.place, studio.warm)
    _add_files(app, studio)
    return TokenGate(app, studio.token)


class TokenGate:
    """Lets in who comes with the token at the end of the address; from then on a cookie takes its place."""

    def __init__(self, application: ASGIApp, token: str) -> None:
        self.application, self.token, self.session = application, token, secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        request = Request(scope, receive)
        cookie = f"hilum-{request.url.port}"
        given = request.cookies.get(cookie, "")
        if hmac.compare_digest(scope["path"].encode(), f"/{self.token}".encode()):
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(cookie, self.session, httponly=True, samesite="strict")
            await response(scope, receive, send)
        elif hmac.compare_digest(given.encode(), self.session.encode()):
            await self.application(scope, receive, send)
        else:
            words = "Open the address that `hilum studio` printed; it ends in a token of this start.\n"
            await PlainTextResponse(words, 403)(scope, receive, send)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HilumError)  # noqa: S101 - registered for these
    return JSONResponse({"problem": error.problem, "where": error.where, "remedy": error.remedy}, 422)


async def _misfit(request: Request, error: Exception) -> JSONResponse:
    problem = getattr(error, "strerror", None) or "is no such request"
    return JSONResponse({"problem": problem, "where": request.url.path, "remedy": "Check the path"}, 422)


async def _refusal_of_http(request: Request, error: Exception) -> JSONResponse:
    """What the library refuses itself in the words of a page: no such place, and a body that cannot be parsed."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    is_body = error.status_code == 400
    problem, remedy = ("is no JSON that can be read", "Send an object") if is_body else (error.detail, "Check the path")
    words = {"problem": problem, "where": request.url.path, "remedy": remedy}
    return JSONResponse(words, 422 if is_body else error.status_code)


@cache
def _page_files() -> dict[str, bytes]:
    """{name: content} of the page; style and colours are those of the node."""
    own, node = files("hilum.doors") / "page", files("hilum") / "service" / "web" / "page"
    every = {one.name: one.read_bytes() for folder in (node, own) for one in folder.iterdir() if one.is_file()}
    return every | {name: text.encode() for name, text in slice_viewer.viewer_files().items()}


def _add_pages(app: FastAPI) -> None:
    @app.get("/")
    @app.get("/study/{key}")
    async def document() -> Response:
        return _page_file(DOCUMENT)

    @app.get("/static/{name}")
    async def part(name: str) -> Response:
        return _page_file(name) if name in _page_files() else PlainTextResponse("There is no such file.", 404)


def _page_file(name: str) -> Response:
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return Response(_page_files()[name], headers=headers, media_type=TYPES[Path(name).suffix])


def _add_jobs(app: FastAPI, studio: Studio) -> None:
    """Commands: their forms, lines and jobs; runs."""
    desk = studio.desk

    @app.get("/api/commands")
    async def commands() -> Any:
        known = [one for one in COMMANDS if not one.is_own]
        return [
            {
                "name": one.name,
                "words": one.words,
                "text": one.text,
                "schema": keyword_schema.command_schema(one),
                "paths": [name for name, keyword in one.keywords.items() if keyword.is_path],
            }
            for one in known
        ]

    @app.post("/api/jobs/{name}")
    def start(name: str, values: Values) -> Any:
        command = command_index.find_command(name)
        if command.is_own:
            raise UsageError("is given at a terminal", name, f"Type hilum {command.words}")
        return asdict(desk.workspace.add(desk.request(command, values)))

    @app.get("/api/jobs")
    def jobs() -> Any:
        desk.workspace.start_next()
        found, problems = desk.workspace.list_jobs()
        return {"jobs": [asdict(one) for one in found], "problems": [str(one) for one in problems]}

    @app.get("/api/jobs/{job}/progress")
    def progress(job: str, start: int = 0) -> Any:
        records, end = job_record.read_progress(desk.workspace.job_folder(job), max(0, start))
        return {"records": records, "end": end}

    @app.get("/api/jobs/{job}/result")
    def result(job: str) -> Any:
        folder = desk.workspace.job_folder(job)
        record, words = job_record.read_result(folder), job_record.read_text_end(folder / job_record.WORDS)
        return {"result": record, "words": words, "errors": job_record.read_text_end(folder / job_record.ERRORS)}

    @app.post("/api/stop/{job}")
    def stop(job: str, keep: bool = False) -> Any:
        """Stop a job. keep: a job that follows evaluates the best weights that a training has learnt so far."""
        stopped = desk.workspace.stop(job)
        if keep:
            values = {"resume": stopped.out, "end_now": True}
            stopped = desk.workspace.add(desk.request(command_index.find_command(stopped.words), values))
        return asdict(stopped)

    @app.get("/api/runs")
    def runs() -> Any:
        return list_runs(desk.workspace.folder)


def _add_data(app: FastAPI, studio: Studio) -> None:
    """Folders, tables of cases, plans."""
    desk, folder = studio.desk, studio.desk.workspace.folder

    @app.get("/api/folders")
    def folders(below: str = "") -> Any:
        roots = [below] if below else [str(one) for one in desk.paths.roots if one != folder]
        found = [str(one) for root in roots for one in sorted(studio.place(root).iterdir()) if one.is_dir()]
        shown = [one for one in found if not Path(one).name.startswith(".")]
        return {"folders": [*roots, *shown][:MOST_FOLDERS], "workspace": str(folder)}

    @app.get("/api/table")
    def table(path: str) -> Any:
        with studio.place(path).open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [[*map(csv_text.unmark_cell, row)] for row in islice(csv.reader(file), MOST_CASES + 1)]
        return {"head": rows[0] if rows else [], "rows": rows[1:]}

    @app.get("/api/doubts")
    def doubts(data: str, named: str = "") -> Any:
        """[case, what speaks against its reference] of a list, the most doubtful first; none without a list."""
        of_list = studio.place(desk.paths.find(named)) if named else None
        found = doubted_cases.find_list(studio.place(desk.paths.find(data)), of_list)
        return [] if found is None else doubted_cases.read_doubts(studio.place(str(found)))

    @app.post("/api/table")
    def keep_table(given: Annotated[EditedTable, Body()]) -> Any:
        """Write an edited table into a folder of its own, beside that from which its paths start."""
        settings = studio.place(str(Path(given.path).parent / "dataset.toml"))
        number = next(n for n in range(1, 10_000) if not (folder / f"table-{n}").exists())
        written = io.StringIO()
        writer = CsvWriter(written, given.head)
        for row in given.rows:
            writer.add(row)
        (folder / f"table-{number}").mkdir()
        (folder / f"table-{number}" / "dataset.csv").write_text(written.getvalue(), encoding="utf-8")
        if settings.is_file():
            (folder / f"table-{number}" / "dataset.toml").write_bytes(settings.read_bytes())
        return {"path": f"table-{number}/dataset.csv"}

    @app.post("/api/plan")
    def plan(values: Values, keep: bool = False) -> Any:
        """The plan at once; where it is kept, it is written as the command that is shown writes it."""
        command = command_index.find_command("plan")
        request = desk.request(command, values)
        given = dict(command.python_values(values))
        given |= {"out": str(folder / request.out)} if keep else {}
        given["data"] = str(desk.paths.start / desk.paths.find(str(values["data"])))
        lines = {"shell": request.shell, "python": request.python}
        return studio.warm.ask("plan", **given) | lines | {"out": request.out}


def _add_files(app: FastAPI, studio: Studio) -> None:
    """Pictures and files."""
    desk, folder = studio.desk, studio.desk.workspace.folder

    @app.get("/api/thumbnail")
    def thumbnail(path: str) -> Response:
        png = studio.warm.ask("thumbnail", path=str(studio.place(path)))["png"]
        return Response(
            base64.b64decode(png), media_type="image/png", headers={"Cache-Control": "private, max-age=600"}
        )

    @app.put("/api/files/{name}")
    async def upload(name: str, request: Request) -> Any:
        """Keep a file that a person chose or dropped."""
        if Path(name).name != name or name.startswith(".") or "\0" in name:
            raise UsageError("is no file name", name[:100], "Rename the file")
        number = next(n for n in range(1, 100_000) if not (folder / "uploads" / str(n)).exists())
        place = folder / "uploads" / str(number)
        await run_in_threadpool(place.mkdir, parents=True)
        size = 0
        with (place / name).open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_UPLOAD:
                    raise UsageError("is larger than 4 GiB", name[:100], "Name its path in place of it")
                file.write(chunk)
        return {"path": f"uploads/{number}/{name}"}

    @app.get("/files/{path:path}")
    def file(path: str) -> Response:
        """A file of the workspace; pages run without the origin of this one, so that they can ask nothing of it."""
        place = folder / path
        desk.paths.refuse_outside(place, path[:200])
        if not place.is_file() or not place.resolve().is_relative_to(folder.resolve()):
            return PlainTextResponse("There is no such file.", 404)
        kind = mimetypes.guess_type(place.name)[0] or "application/octet-stream"
        return FileResponse(place, media_type=kind, headers={"Content-Security-Policy": REPORT_POLICY})


# The runs below a workspace, each with its verdict and its primary metric.


@dataclass(frozen=True)
class ListedRun:
    """A run in a list: its folder, what its figures support, and the primary metric; empty where it is unfinished."""

    name: str
    verdict: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    report: str = ""
    finished: float = 0.0


def list_runs(workspace: Path) -> list[ListedRun]:
    """The runs of a workspace, the newest first."""
    folders = [one for one in workspace.iterdir() if one.is_dir() and all((one / mark).is_file() for mark in MARKS)]
    runs = [_listed_run(one, _time_of(one / SUMMARY), (one / REPORT).is_file()) for one in folders]
    return sorted(runs, key=lambda one: (one.finished, one.name), reverse=True)


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@lru_cache(maxsize=1000)
def _listed_run(folder: Path, finished: float, has_report: bool) -> ListedRun:
    report = f"{folder.name}/{REPORT}" if has_report else ""
    try:
        summary = structured_text.load_json(folder / SUMMARY)
        rows, primary = list(summary["rows"]), summary.get("primary")
        row = next((one for one in rows if one["metric"] == primary), rows[0])
        answer = str(summary.get("verdict", {}).get("answer", ""))
        estimate = {name: row.get(name) for name in ("value", "low", "high")}
        return ListedRun(folder.name, answer, str(row["metric"]), report=report, finished=finished, **estimate)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):  # unfinished, or of another version
        return ListedRun(folder.name, report=report, finished=finished)


# Label maps as a person looks at them and corrects them by the page of a node; a correction is a new file.


def add_routes(app: FastAPI, folder: Path, place: Callable[[str], Path], warm: WarmProcess) -> None:
    """What the page of a node asks of a study, here with one image and one label map, both named by the key.

    folder: in which corrections are written; place: of a path that may be read
    """

    def paths_of(key: str) -> dict[str, str]:
        try:
            image, mask = structured_text.parse_json(bytes.fromhex(key).decode())
            return {"image": str(place(image)), "mask": str(place(mask))}
        except (ValueError, TypeError) as error:
            raise UsageError("names no image", key[:40], "Open it from the page of runs") from error

    @app.get("/api/studies/{key}/reading")
    def reading(key: str) -> Any:
        paths = paths_of(key)
        shown = os.path.relpath(paths["mask"], folder)
        job: dict[str, PlainValue] = {
            "job": key,
            "model": shown,
            "state": "done",
            "outcome": "answered",
            "series": [key],
        }
        job |= {"labels": warm.ask("labels", **paths), "maps": ["mask"], "boxes": [], "findings": [], "revision": 0}
        name = Path(paths["image"]).name
        lists: dict[str, list[Any]] = {one: [] for one in ("earlier", "blind", "reasons", "withheld")}
        series = {"series": key, "modality": "", "description": name, "kind": "volume", "instances": 1}
        return {"study": key, "patient": name, "text": "", "series": [series], "jobs": [job], **lists}

    @app.get("/api/series/{key}/{what}")
    def facts(key: str, what: Literal["grid", "range"], channel: int = 0) -> Any:
        place = {} if what == "grid" else {"channel": channel}
        return warm.ask(what, image=paths_of(key)["image"], **place)

    @app.get("/api/series/{key}/slices/{plane}/{number}")
    @app.get("/api/jobs/{key}/maps/{name}/slices/{plane}/{number}")
    def cut(key: str, plane: str, number: int, name: str = "", frame: int = 0, channel: int = 0) -> Response:
        paths = paths_of(key) | ({} if name else {"mask": ""})
        answer = warm.ask("slice", **paths, plane=plane, number=number, frame=frame, channel=channel)
        pixels = base64.b64decode(answer["pixels"])
        return Response(pixels, media_type="application/octet-stream", headers=answer["headers"])

    @app.put("/api/jobs/{key}/correction")
    def correct(key: str, strokes: Strokes) -> Any:
        """Write the strokes as a label map of its own, beside those before it."""
        paths = paths_of(key)
        number = next(n for n in range(1, 100_000) if not (folder / f"corrected-{n}").exists())
        out = f"corrected-{number}/{Path(paths['mask']).name}"
        warm.ask("correct", **paths, strokes=[asdict(one) for one in strokes], out=str(folder / out))
        return {"revision": number, "path": out, "study": json.dumps([paths["image"], out]).encode().hex()}
