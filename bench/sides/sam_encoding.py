"""One side of `foundation.py`: an image encoded by SAM, and prompts after it. Its last line is what it measured.

    python bench/sides/sam_encoding.py ours|theirs CHECKPOINT MODEL(vit_b) [--small]

The larger of two peaks of memory would hide the smaller: what encoding adds is the peak less what was held before it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

BOX = (300, 250, 700, 640)


def picture(side: int) -> np.ndarray:
    """(side, side, 3) noise of 8 bits."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call, which is not the first."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ours(checkpoint: Path, side: int) -> tuple[Callable[[], object], dict[str, float]]:
    """Our encoder, and the seconds of a first and of a further prompt of an image."""
    from isocenter.runtime.foreign import sam_file
    from isocenter.values import Geometry, Image, Prompts

    model = sam_file.load_sam(checkpoint, "sam", "cpu")
    image = Image(picture(side).transpose(2, 0, 1), Geometry.of_pixels((side, side)), channels=("R", "G", "B"))
    box = tuple(n * side / 1024 for n in BOX)
    seconds = {}
    with model.encoded(image) as seen:
        for name, prompts in (("first", Prompts(boxes=[box])), ("further", Prompts(points=[(side / 2, side / 2, 1)]))):
            started = time.perf_counter()
            seen.predict(prompts)
            seconds[name] = time.perf_counter() - started
    module, tensor = model.networks.members[0].module, torch.zeros(1, 3, side, side)
    return lambda: module.encode(tensor), seconds


def theirs(checkpoint: Path, side: int, name: str) -> tuple[Callable[[], object], dict[str, float]]:
    """segment-anything's encoder, and the seconds of the same prompts by its predictor."""
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry[name](checkpoint=str(checkpoint)))
    started = time.perf_counter()
    predictor.set_image(picture(side))
    predictor.predict(box=np.array(BOX) * side / 1024)
    seconds = {"first": time.perf_counter() - started}
    started = time.perf_counter()
    predictor.predict(point_coords=np.array([[side / 2, side / 2]]), point_labels=np.array([1]))
    seconds["further"] = time.perf_counter() - started
    tensor = torch.zeros(1, 3, side, side)
    return lambda: predictor.model.image_encoder(tensor), seconds


def main() -> None:
    """Measure one side and print it."""
    which, checkpoint, name, side = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with torch.inference_mode():
        encode, seconds = ours(checkpoint, side) if which == "ours" else theirs(checkpoint, side, name)
        held = psutil.Process().memory_info().rss
        encoding = timed(encode)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"encoding": encoding, "encoding_mib": (peak - held) / 2**20, **seconds}))


if __name__ == "__main__":
    main()
