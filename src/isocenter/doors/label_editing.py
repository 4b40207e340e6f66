"""Label maps as a person looks at them and corrects them by the page of a node; a correction is a new file."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI
from fastapi.responses import Response

from isocenter.doors.warm_process import WarmProcess
from isocenter.errors import UsageError
from isocenter.files.storage import structured_text
from isocenter.service.reading.label_strokes import Stroke

Strokes = Annotated[list[Stroke], Body(embed=True, min_length=1)]


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
        job: dict[str, Any] = {"job": key, "model": shown, "state": "done", "outcome": "answered", "series": [key]}
        job |= {"labels": warm.ask("labels", **paths), "maps": ["mask"], "boxes": [], "findings": [], "revision": 0}
        name = Path(paths["image"]).name
        lists: dict[str, list[Any]] = {one: [] for one in ("earlier", "blind", "reasons", "withheld")}
        series = {"series": key, "modality": "", "description": name, "kind": "volume", "instances": 1}
        return {"study": key, "patient": name, "text": "", "series": [series], "jobs": [job], **lists}

    @app.get("/api/series/{key}/{what}")
    def facts(key: str, what: Literal["grid", "range"], channel: int = 0) -> Any:
        return warm.ask(what, image=paths_of(key)["image"], channel=channel)

    @app.get("/api/series/{key}/slices/{plane}/{number}")
    @app.get("/api/jobs/{key}/maps/{name}/slices/{plane}/{number}")
    def cut(key: str, plane: str, number: int, name: str = "", frame: int = 0, channel: int = 0) -> Response:
        paths = paths_of(key) | ({} if name else {"mask": ""})
        answer = warm.ask("slice", **paths, plane=plane, number=number, frame=frame, channel=channel)
        pixels = base64.b64decode(answer["pixels"])
        return Response(pixels, media_type="application/octet-stream", headers=answer["headers"])

    @app.put("/api/jobs/{key}/correction")
    def correct(key: str, strokes: Strokes) -> Any:
        """Write what is drawn as a label map of its own, beside those before it."""
        paths = paths_of(key)
        number = next(n for n in range(1, 100_000) if not (folder / f"corrected-{n}").exists())
        out = f"corrected-{number}/{Path(paths['mask']).name}"
        warm.ask("draw", **paths, strokes=[asdict(one) for one in strokes], out=str(folder / out))
        return {"revision": number, "path": out, "study": json.dumps([paths["image"], out]).encode().hex()}
