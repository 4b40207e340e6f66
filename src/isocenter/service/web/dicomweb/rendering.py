"""Pictures of frames for people: through a window, as large as asked (PS3.18 8.3.5)."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, Field

from isocenter.files.dicom import Window, read_header, shown_frame
from isocenter.service.web.web_node import WebError

NUMBER = r"-?\d{1,9}(\.\d{1,9})?"
FUNCTIONS = {"": "LINEAR", "linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}


class Rendering(BaseModel):
    """How a picture is wanted. window: centre, width and function; viewport: width and height (pixels)."""

    window: Annotated[str | None, Field(pattern=rf"^{NUMBER},{NUMBER}(,(linear|linear-exact|sigmoid))?$")] = None
    viewport: Annotated[str | None, Field(pattern=r"^[1-9]\d{0,3},[1-9]\d{0,3}$")] = None
    quality: Annotated[int, Field(ge=1, le=100)] = 90


def rendered(path: Path, number: int, how: Rendering, kind: str) -> bytes:
    """A frame as `jpeg` or `png`. Raises FormatError where it cannot be decoded."""
    picture = Image.fromarray(shown_frame(read_header(path), number, _window(how.window)))
    if how.viewport is not None:
        width, height = map(int, how.viewport.split(","))
        scale = min(width / picture.width, height / picture.height)
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    file = io.BytesIO()
    picture.save(file, kind, quality=how.quality)
    return file.getvalue()


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    centre, width, function = re.split(",", f"{text},")[:3]
    if float(width) <= 0:
        raise WebError(400, "the width of a window must be above 0", "window", "Give window=centre,width,linear")
    return Window(float(centre), float(width), FUNCTIONS[function])
