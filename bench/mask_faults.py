"""Masks that do not fit their images, planted by rule in real sets: how often `check` names the case, and the cause.

    OMP_NUM_THREADS=1 python bench/mask_faults.py --resume --record
    python bench/mask_faults.py --sets hippocampus --cases 20

For each set and kind of fault a case is spoilt among others that are as they are; named is a warning or an error that
lists the case. Beside it, the share of sets without a planted fault in which a case is named, and a plain z of the
case's mean intensity inside the mask and of its volume, at a limit that names as many cases of sets without a fault.
What is measured of each case is kept, so that a second run goes on where the first ended.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from environment import ROOT
from fuzz import DATA
from plants.mask_faults import CAUSES, FAULTS, Array, Pair, plant
from recorded import record

from hilum.quality import _image_checks, dataset_examination, image_likeness, mask_fit, mask_placement
from hilum.quality.known_cases import Measured
from hilum.reading import ReadingOptions, dataset_reading
from hilum.transforms import channel_stack
from hilum.values import Case, Cohort, Dataset, Fingerprint, Geometry, Image, Problem

PLACE = ROOT / ".bench" / "mask_faults"
SETS = {
    "hippocampus": "hippocampus",
    "FLAIR tumours": "mri/lgg_flair",
    "cine": "mri/cardiac_sunnybrook",
    "nuclei": "dsb2018",
    "vessels": "chasedb1",
    "ultrasound": "ultrasound",
    "simulated CT": "",
}
# Cases of a set that are taken at the most: evenly, and one of each patient where there are more patients.
MOST_CASES = 200
# Sets of so many cases are drawn for false alarms, this many of each size.
SIZES, DRAWS = (10, 20, 60), 200
# Voxels along a side of the simulated volumes, and their number.
SIDE, SIMULATED = 48, 60


def pairs_of(name: str) -> list[tuple[str, Pair]]:
    """(Patient, image and labels in canonical order) of the cases of a set with a mask that is not empty."""
    if not SETS[name]:
        return [(f"{number}", simulated_volume(number)) for number in range(SIMULATED)]
    dataset = dataset_reading.open_dataset(DATA / SETS[name], ReadingOptions())
    by_patient: dict[str, list[Case]] = {}
    for case in dataset.cases:
        by_patient.setdefault(case.patient, []).append(case)
    # The same number of each patient, from the middle outwards.
    share = max(1, MOST_CASES // len(by_patient))
    pairs = []
    for patient, cases in by_patient.items():
        first = max(0, (len(cases) - share) // 2)
        for case in cases[first : first + share]:
            mask = case.references[mask_fit.mask_name(case)]
            pixels, labels = mask_placement.canonical_arrays(channel_stack.stack_images(case.images, case.id), mask)
            if labels.any():
                whole = (labels != 0) if name == "nuclei" else labels
                pairs.append((patient, (np.array(pixels, dtype=np.float32), np.array(whole, dtype=np.uint8))))
    return pairs[:MOST_CASES]


def simulated_volume(number: int) -> Pair:
    """A trunk with lungs, liver (1), spleen (2) and kidneys (3), in Hounsfield units with noise."""
    rng = np.random.default_rng(number)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 3, indexing="ij")

    def ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> Array:
        middle = np.array(centre) + rng.normal(0, 0.03, 3)
        sizes = np.array(radii) * np.exp(rng.normal(0, 0.1, 3))
        return ((x - middle[0]) / sizes[0]) ** 2 + ((y - middle[1]) / sizes[1]) ** 2 + (
            (z - middle[2]) / sizes[2]
        ) ** 2 < 1

    image = np.full((SIDE,) * 3, -1000.0)
    labels = np.zeros((SIDE,) * 3, dtype=np.uint8)
    image[(x / 0.85) ** 2 + (y / 0.6) ** 2 < 1] = -80 + rng.normal(0, 10)
    for side in (-1, 1):
        image[ellipsoid((side * 0.4, 0.05, 0.6), (0.28, 0.4, 0.45))] = -850
    organs = ((1, (0.35, 0.05, -0.05), (0.38, 0.4, 0.3), 60.0), (2, (-0.5, -0.15, 0.0), (0.15, 0.2, 0.2), 50.0))
    kidneys = [(3, (side * 0.35, -0.25, -0.5), (0.13, 0.14, 0.22), 35.0) for side in (-1, 1)]
    for value, centre, radii, level in (*organs, *kidneys):
        inside = ellipsoid(centre, radii)
        image[inside] = level + rng.normal(0, 8)
        labels[inside] = value
    return (image + rng.normal(0, 15, image.shape)).astype(np.float32), labels


def case_of(name: str, patient: str, pair: Pair) -> Case:
    """A case in memory with the pair as image and mask, one mm a voxel."""
    pixels, labels = pair
    grid = Geometry(labels.shape, np.eye(labels.ndim + 1))
    image = Image(pixels[None], grid, "unknown")
    mask = Image(labels[None], grid)
    return Case(name, patient, {"image": image}, {"mask": mask})


def measure(name: str, pairs: Sequence[tuple[str, Pair]], rng: np.random.Generator, faulty: int) -> dict[str, list]:
    """{"": what is measured of each case as it is; fault: (case number, case, what is measured) of spoilt cases}."""
    strangers = pairs_of("FLAIR tumours" if name == "hippocampus" else "hippocampus")
    measured: dict[str, list] = {"": []}
    for number, (patient, pair) in enumerate(pairs):
        case = case_of(f"{number}", patient, pair)
        measured[""].append((number, case, dataset_examination._measure(case)))
    for fault in FAULTS:
        measured[fault] = []
        for number in rng.choice(len(pairs), min(faulty, len(pairs)), replace=False).tolist():
            patient, pair = pairs[number]
            others = [other for owner, other in pairs if owner != patient]
            spoilt = plant(fault, pair, others, strangers[int(rng.integers(len(strangers)))][1][0], rng)
            if spoilt is not None:
                case = case_of("spoilt", patient, spoilt)
                measured[fault].append((number, case, dataset_examination._measure(case)))
    return measured


def findings_on(rows: Sequence[tuple[int, Case, Measured]]) -> list[Problem]:
    """Warnings and errors on these cases."""
    problems = []
    looks, facts, cases = {}, [], []
    for _, case, (known, own) in rows:
        problems += own
        if known is not None:
            facts.append(known[0])
            looks[case.id] = known[1]
            cases.append(case)
    cohort = Cohort(Dataset(tuple(cases)), Fingerprint(tuple(facts)))
    problems += mask_fit.unfit_masks(cohort, looks)
    problems += image_likeness.unlike_images(facts, looks)
    problems += _image_checks.find_outliers(facts, looks)
    return [problem for problem in problems if problem.severity != "note" and problem.cases]


def plain_rates(rows: Sequence[tuple[int, Case, Measured]]) -> np.ndarray:
    """(cases,) the larger of two robust z: mean intensity inside the mask, and the logarithm of its volume."""
    values = []
    for _, case, _ in rows:
        inside = case.references["mask"].data[0] != 0
        pixels = case.images["image"].data[0]
        mean = float(pixels[inside].mean()) if inside.any() else 0.0
        values.append((mean, float(np.log(1 + inside.sum()))))
    return np.abs(_image_checks.robust_z(np.array(values), 1e-3)).max(axis=1)


def judge(name: str, measured: dict[str, list], cases: int, sets: int, seed: int) -> dict[str, object]:
    """Rates of a set: sets of so many cases in which a right case is named, and faults that are named, by kind."""
    rng = np.random.default_rng(seed)
    clean = measured[""]
    size = min(cases, len(clean) - 1)
    named_sets, highest, odd = 0, [], []
    for _ in range(sets):
        rows = [clean[number] for number in rng.choice(len(clean), size, replace=False)]
        fit = [p for p in findings_on(rows) if not p.what.startswith(OTHER_FINDINGS)]
        named_sets += bool(fit)
        odd += [(p.cases[0], p.what) for p in fit]
        highest.append(plain_rates(rows).max())
    limit = float(np.quantile(highest, 0.95))
    faults = {}
    for fault in FAULTS:
        named = cause = plain = 0
        for number, case, outcome in measured[fault]:
            others = [row for row in clean if row[0] != number]
            rows = [others[other] for other in rng.choice(len(others), size - 1, replace=False)]
            rows.append((number, case, outcome))
            found = [p for p in findings_on(rows) if case.id in p.cases]
            named += bool(found)
            cause += any(re.search(CAUSES[fault], p.what) for p in found)
            plain += plain_rates(rows)[-1] > limit
        if measured[fault]:
            faults[fault] = {"draws": len(measured[fault]), "named": named, "cause": cause, "plain": int(plain)}
    return {"set": name, "cases": size, "sets": sets, "false": named_sets, "odd": sorted(set(odd)), "faults": faults}


# Findings that were there before, on intensities alone.
OTHER_FINDINGS = ("intensities are of another magnitude", "blurred", "noisy", "clipped", "ghosts", "spacing", "letters")


def table(rows: Sequence[dict]) -> str:
    """Rates in Markdown: named, with the right cause, and by the plain z."""
    lines = [
        f"| set | cases | named in sets without a fault | {' | '.join(FAULTS)} |",
        f"|---|---:|---:|{'---:|' * len(FAULTS)}",
    ]
    for row in rows:
        cells = []
        for fault in FAULTS:
            figures = row["faults"].get(fault)
            cells.append(
                "-" if figures is None else
                f"{figures['named']} ({figures['cause']}; {figures['plain']}) of {figures['draws']}"
            )  # fmt: skip
        lines.append(f"| {row['set']} | {row['cases']} | {row['false']} of {row['sets']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--cases", type=int, nargs="+", default=list(SIZES), help="cases of a set")
    parser.add_argument("--draws", type=int, default=DRAWS, help="sets without a fault")
    parser.add_argument("--faulty", type=int, default=30, help="spoilt cases of each kind")
    parser.add_argument("--resume", action="store_true", help="go on where a run with these options ended")
    parser.add_argument("--record", action="store_true", help="write the table to the findings")
    given = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    kept = PLACE / f"rates_{given.draws}_{given.faulty}.json"
    rows = json.loads(kept.read_text()) if given.resume and kept.exists() else []
    for name in given.sets:
        sizes = [size for size in given.cases if not any((r["set"], r["asked"]) == (name, size) for r in rows)]
        if not sizes:
            continue
        measured = measure(name, pairs_of(name), np.random.default_rng(0), given.faulty)
        for size, before in zip(sizes, [0, *sizes], strict=False):
            if before and before >= len(measured[""]):  # the same cases once more
                continue
            rows.append({"asked": size, **judge(name, measured, size, given.draws, seed=size)})
            kept.write_text(json.dumps(rows))
            print(table(rows[-1:]), rows[-1]["odd"][:6], flush=True)
    if given.record:
        record("mask_faults", "Masks that do not fit their images", table(rows), {"rows": rows})


if __name__ == "__main__":
    main()
