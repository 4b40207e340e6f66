"""How often the gate refuses good pictures by what no network has a say in, with few and with many known cases.

    python bench/gate_alarms.py --record

Pictures of a set are drawn as training cases and as cases that did not train; others of the same set are shown to the
gate. Each score has its part of the level of 1 %, as in a model whose network gives features too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recorded import record
from trainings import ROOT

from isocenter.runtime.guard import image_gate, image_observation
from isocenter.runtime.guard.image_gate import SCORES
from isocenter.runtime.guard.image_observation import Observation
from isocenter.values import Geometry, Image

LEVEL, SHOWN = 0.01, 250
SETS = ("retinamnist", "pneumoniamnist")
# (training cases, cases that did not train, draws)
KNOWN = ((33, 7, 12), (93, 16, 8), (200, 40, 6))


@dataclass(frozen=True)
class Alarms:
    """Of so many good pictures how many each score refuses, and how many any of them does."""

    data: str
    trained: int
    held_out: int
    shown: int
    refused: Mapping[str, int]
    any_of_them: int


def observed(pixels: NDArray[np.uint8]) -> Observation:
    """What a network would see of a picture: each channel in its own standard deviations."""
    own = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    image = Image(np.ascontiguousarray(own), Geometry.of_pixels(own.shape[1:]), channels=("R", "G", "B")[: len(own)])
    seen = own.astype(np.float32)
    seen = (seen - seen.mean(axis=(1, 2), keepdims=True)) / np.maximum(seen.std(axis=(1, 2), keepdims=True), 1e-6)
    return Observation(
        image_observation.header_facts(image),
        seen.reshape(len(seen), -1),
        composed=image_observation.window_composition(seen),
    )


def alarms(data: str, pictures: list[Observation], trained: int, held_out: int, draws: int) -> Alarms:
    """Over draws of who trains, who did not, and who is shown."""
    refused, some, shown = Counter[str](), 0, 0
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(pictures))
        known, others = trained + held_out, len(pictures)
        each = [pictures[place] for place in order]
        guard = image_gate.fit_guard(each[:trained], each[trained:known], LEVEL, exact=True)
        assert guard is not None
        own = LEVEL / len(SCORES)
        guard = replace(guard, level=own * len(guard.held_out))
        for one in each[known : min(others, known + SHOWN)]:
            found = {name: p < own for name, p in guard.p_values(guard.distances(one)).items()}
            refused.update({name: int(is_refused) for name, is_refused in found.items()})
            some, shown = some + any(found.values()), shown + 1
    return Alarms(data, trained, held_out, shown, dict(refused), some)


def words_of(rows: list[Alarms]) -> str:
    """A line for each set and each number of known cases."""
    names = list(rows[0].refused)
    head = f"| set | training cases | others | pictures shown | {' | '.join(names)} | any |"
    lines = [head, "|---" * (5 + len(names)) + "|"]
    for row in rows:
        shares = [f"{100 * count / row.shown:.2f} %" for count in [*row.refused.values(), row.any_of_them]]
        lines.append(f"| {row.data} | {row.trained} | {row.held_out} | {row.shown} | {' | '.join(shares)} |")
    allowed = 100 * LEVEL / len(SCORES)
    return "\n".join(
        [*lines, "", f"Each score may refuse {allowed:.2f} %, these together {allowed * len(names):.2f} %."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    parser.add_argument("--most", type=int, default=1200, help="pictures of a set")
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    rows = list[Alarms]()
    for data in SETS:
        kept = np.load(given.data / f"{data}.npz")
        pixels = np.concatenate([kept["train_images"], kept["val_images"]])
        drawn = np.random.default_rng(0).permutation(len(pixels))[: given.most]
        pictures = [observed(one) for one in pixels[drawn]]
        rows += [alarms(data, pictures, *known) for known in KNOWN]
    text = words_of(rows)
    print(text)
    if given.record:
        record("gate_alarms", "Good pictures that the gate refuses", text, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
