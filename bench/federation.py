"""Hippocampus over five sites with SIMULATED scanners: weights that travel, all images in one place, one site alone.

    python bench/federation.py --out DIR --minutes 4 --record

Sites have 60, 30, 15, 10 and 5 training cases; each has a scanner of its own, which is a simulation: another contrast,
field, blur and noise. All routes are given the same minutes, and are scored on the same 80 test cases, 16 of each
scanner. The file names do not tell whose a volume is: two may be of one person, so the split cannot be shown to be
clean by patients. Cells that have ended are lines of DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from environment import ROOT
from recorded import measured_cell, record
from scipy import ndimage

import isocenter
from isocenter.evaluation import intervals

SOURCE = ROOT.parent / "shared" / "data" / "hippocampus"
SIZES, TESTED, LABELS = {"a": 60, "b": 30, "c": 15, "d": 10, "e": 5}, 16, "1=anterior,2=posterior"
# Of each simulated scanner: exponent of the greys, strength of the field, blur in voxels, noise in shares of the range.
SCANNERS = {
    "a": (1.0, 0.0, 0.0, 0.0),
    "b": (0.6, 0.3, 0.0, 0.02),
    "c": (1.6, 0.0, 0.7, 0.02),
    "d": (0.8, 0.5, 0.5, 0.05),
    "e": (1.3, 0.6, 0.0, 0.08),
}
PLANNED = ("fedavg", "pooled", "site a alone (60)", "site e alone (5)")
NOT_MEASURED = ("FedProx", "fedopt", "own normalisation layers", "median with a poisoned site", "unequal classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each route")
    parser.add_argument("--only", default="", help="how the name of a route begins")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO)
    sites, test = simulated_sites(given.out / "data")
    usual = {"labels": LABELS, "device": "cpu", "threads": 1, "everything": True, "overwrite": True}
    usual["minutes"] = given.minutes

    def trained(name: str, data: Path) -> Path:
        return isocenter.train(data, out=given.out / name, **usual).out

    routes: Mapping[str, Callable[[], Path]] = {
        PLANNED[0]: lambda: isocenter.federate(sites, out=given.out / "fedavg", rounds=12, **usual).out,
        PLANNED[1]: lambda: trained("pooled", pooled_folder(sites, given.out / "data")),
        PLANNED[2]: lambda: trained("largest", sites["a"]),
        PLANNED[3]: lambda: trained("smallest", sites["e"]),
    }
    rows = {
        name: measured_cell(given.out, name, lambda route=route, name=name: scored(route(), test, given.out / name))
        for name, route in routes.items()
        if name.startswith(given.only)
    }
    text = page(rows, given.out)
    print(text)
    if given.record:
        title = "One model over five sites with SIMULATED scanners"
        record("federation", title, text, {"minutes": given.minutes, "routes": rows, "not_measured": NOT_MEASURED})


def simulated_sites(folder: Path) -> tuple[dict[str, Path], Path]:
    """{site: its folder}, and the folder of test cases of all scanners; made once."""
    names = np.random.default_rng(0).permutation(sorted(path.name for path in (SOURCE / "images").iterdir())).tolist()
    test = folder / "test"
    for number, (site, count) in enumerate(SIZES.items()):
        for place, some in ((folder / site, count), (test, TESTED)):
            chosen, names = names[:some], names[some:]
            for n, name in enumerate(chosen):
                target = place / "images" / f"{site}_{name}"
                if not target.is_file():
                    write_case(name, target, SCANNERS[site], seed=1000 * number + n)
    return {site: folder / site for site in SIZES}, test


def write_case(name: str, target: Path, scanner: tuple[float, float, float, float], seed: int) -> None:
    """A case as a simulated scanner shows it, beside its labels."""
    exponent, strength, blur, noise = scanner
    rng, image = np.random.default_rng(seed), nibabel.load(SOURCE / "images" / name)
    values = np.asarray(image.dataobj, dtype=np.float64)
    low, high = np.quantile(values, [0.005, 0.995])
    grey = np.clip((values - low) / max(high - low, 1e-9), 0, 1) ** exponent
    field = ndimage.zoom(rng.uniform(-1, 1, (3, 3, 3)), [size / 3 for size in grey.shape], order=3)
    field = field[tuple(map(slice, grey.shape))]
    shown = ndimage.gaussian_filter(grey * np.exp(strength * field), blur) + rng.normal(0, 1, grey.shape) * noise
    for folder in ("images", "labels"):
        (target.parents[1] / folder).mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image((1000 * shown).astype(np.float32), image.affine).to_filename(target)
    mask = nibabel.load(SOURCE / "labels" / name)
    mask.to_filename(target.parents[1] / "labels" / target.name)


def pooled_folder(sites: Mapping[str, Path], folder: Path) -> Path:
    """All images in one place, which sites in life may not do."""
    for site in sites.values():
        for path in site.rglob("*.nii.gz"):
            (target := folder / "pooled" / path.relative_to(site)).parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder / "pooled"


def scored(run: Path, test: Path, out: Path) -> dict[str, Any]:
    """Mean Dice of the test cases; the table of cases is kept in `out`."""
    isocenter.evaluate(run, test, labels=LABELS, out=Path(f"{out}.scored"), overwrite=True, threads=1, device="cpu")
    dice = dice_by_case(out)
    steps = int(pd.read_csv(next(iter([*run.glob("log.csv"), *Path(f"{run}.sites").glob("*/log.csv")])))["step"].max())
    row: dict[str, Any] = {"dice": float(dice.mean()), "steps": steps}
    return {**row, **{f"dice_{site}": float(dice[dice.index.str.startswith(f"{site}_")].mean()) for site in SIZES}}


def dice_by_case(out: Path) -> pd.Series:
    table = pd.read_csv(Path(f"{out}.scored") / "cases.csv")
    table["case"] = table["case"].str.rpartition("/")[2]
    return table.groupby("case")["dice"].mean()


def page(rows: Mapping[str, Mapping[str, Any]], out: Path) -> str:
    """The table of routes, with the difference of each from fedavg by case, and what was not measured."""
    heads = ["route", "steps of a site", "Dice", "fedavg minus it", *(f"scanner {site}" for site in SIZES)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in rows.items():
        apart = ""
        if name != PLANNED[0] and PLANNED[0] in rows:
            change = (dice_by_case(out / PLANNED[0]) - dice_by_case(out / name)).dropna()
            found = intervals.bootstrap(change.to_numpy(), change.index.to_numpy(), seed=0, exact=False)
            apart = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        by_scanner = [f"{row[f'dice_{site}']:.3f}" for site in SIZES]
        cells = [name, str(row["steps"]), f"{row['dice']:.3f}", apart, *by_scanner]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {name} | not measured |{' |' * (len(heads) - 2)}" for name in NOT_MEASURED]
    intro = (
        "Scanners are simulated: contrast, field, blur and noise of each site's images are changed by a rule of their "
        "own. One training of each route, on one core; intervals are of test cases (paired), not of trainings. Volumes "
        "may be of one person, since the names of the files do not tell."
    )
    return "\n".join([intro, "", *lines])


if __name__ == "__main__":
    main()
