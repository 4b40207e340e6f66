"""One model over five sites: volumes by SIMULATED scanners, classes in unequal shares, and memory by rounds.

    python bench/federation.py pneumonia --out DIR --minutes 2 --record
    python bench/federation.py hippocampus --out DIR --minutes 3 --record
    python bench/federation.py rounds --out DIR --record
    python bench/federation.py carriers --out DIR --record

hippocampus: sites have 60, 30, 15, 10 and 5 training cases; each has a scanner of its own, which is a simulation:
another contrast, field, blur and noise. All routes are scored on the same 80 test cases, 16 of each scanner. The file
names do not tell whose a volume is: two may be of one person, so the split cannot be shown to be clean by patients.
pneumonia: PneumoniaMNIST parted among sites of unlike shares of classes, scored on its own test part; a poisoned site
sends its change of the weights with the sign turned; where each site attacks the model, each has a split of its own.
rounds: memory of the process as thirty rounds of small pictures and networks end. carriers: three rounds of these in
one process, by NVFlare in one process a party, and by NVFlare's own FedAvg in such processes; memory is the sum of the
proportional shares (PSS) of all processes, looked at every second. All routes of a part are given the same minutes.
Cells that have ended are lines of DIR/cells.jsonl, and are not repeated; those of an earlier record stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pandas as pd
import psutil
from environment import ROOT
from recorded import known, measured_cell, record, row_words
from safetensors import numpy as safetensors
from scipy import ndimage, stats

import hilum
from hilum.evaluation import intervals
from hilum.evaluation.metric import MEMBERSHIP
from hilum.federation import nvflare_carrier, parties, party_kits
from hilum.federation.aggregation import VARIANCE
from hilum.federation.exchanges import SiteMessage
from hilum.federation.parties import PartyProcesses
from hilum.federation.party_kits import FederationFile
from hilum.federation.site import AVERAGED, Site

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
FEDAVG = "fedavg"
NORMALISATION = {"federation.private_layers": ["*norm*"]}
# Sites that know one of the two structures: its number, and its name.
KNOWN = {"b": (1, "anterior"), "d": (2, "posterior"), "e": (1, "anterior")}
PICTURES = ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
# Of each site: training pictures, and the share of them that show pneumonia. The first of DRAWS resamples is as it is.
SHARES = {"a": (1600, 0.90), "b": (1000, 0.85), "c": (800, 0.70), "d": (500, 0.50), "e": (400, 0.30)}
POISONED, DRAWS, PNEUMONIA = "c", 2000, 1
THEIRS = ["workflows.fedavg.FedAvg", "np.np_model_persistor.NPModelPersistor", "np.np_trainer.NPTrainer"]
THEIRS, WEIGHTS = [f"nvflare.app_common.{one}" for one in THEIRS], "checkpoints/last/weights.safetensors"
ROUNDS, MEMORY_ROUNDS, CARRIED_ROUNDS, SMALL = 10, 30, 3, 40
ASKED_LEVEL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each route")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="routes whose names begin so")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO)
    measured = {
        name: measured_cell(given.out, name, route)
        for name, route in PARTS[given.part](given).items()
        if name.startswith(tuple(given.only))
    }
    kept = known("federation").get("parts", {})
    parts = {**kept, given.part: with_changes({**kept.get(given.part, {}), **measured}, given.out)}
    text = "\n\n".join(PAGES[part](parts[part]) for part in PARTS if part in parts)
    print(text)
    if given.record:
        record("federation", "One model over five sites, scanners SIMULATED", text, {"parts": parts})


Routes = Mapping[str, Callable[[], dict[str, Any]]]


def over_scanners(given: Any) -> Routes:
    """Routes of the hippocampus."""
    sites, test = simulated_sites(given.out / "data")
    usual = {"labels": LABELS, "device": "cpu", "threads": 1, "everything": True, "overwrite": True}
    usual["minutes"] = given.minutes

    def apart(name: str, data: Path) -> dict[str, Any]:
        run = given.out / name
        if not (run / "report.html").is_file():  # else it was trained, and not scored
            hilum.train(data, out=run, **usual)
        return scored(run, test, given, name)

    def together(name: str, assignments: Mapping[str, Any], of: Mapping[str, Path] = sites) -> dict[str, Any]:
        job = hilum.federate(of, out=given.out / name, rounds=ROUNDS, assignments=dict(assignments), **usual).out
        return scored(job, test, given, name)

    proximal = {"objectives.terms": ["supervised", "l2_sp"], "l2_sp.towards": "round"}
    return {
        FEDAVG: partial(together, FEDAVG, {}),
        "pooled": lambda: apart("pooled", pooled_folder(sites, given.out / "data")),
        "site a alone (60)": lambda: apart("largest", sites["a"]),
        "site e alone (5)": lambda: apart("smallest", sites["e"]),
        "own normalisation": partial(together, "normalisation", NORMALISATION),
        "FedProx": partial(together, "proximal", proximal),
        "fedopt": partial(together, "fedopt", {"federation.method": "fedopt"}),
        "three sites know one structure": lambda: together("known", {}, half_known(sites, given.out / "data")),
    }


def over_classes(given: Any) -> Routes:
    """Routes of PneumoniaMNIST."""
    sites = parted_pictures(given.out / "pictures")
    usual = {"device": "cpu", "threads": 1, "everything": True, "overwrite": True, "minutes": given.minutes}

    def apart(name: str, data: Path) -> dict[str, Any]:
        return classified(hilum.train(data, out=given.out / name, **usual).out, given.out, name)

    def together(name: str, method: str, kind: type[Site] = Site) -> dict[str, Any]:
        asked = {"federation.method": method}
        with mock.patch("hilum.verbs.federate.Site", kind):
            job = hilum.federate(sites, out=given.out / name, rounds=ROUNDS, assignments=asked, **usual).out
        return classified(job, given.out, name)

    def attacked(name: str, budget: Mapping[str, Any]) -> dict[str, Any]:
        own = {**usual, "everything": False, "membership": True, "rounds": ROUNDS, "assignments": budget}
        job = hilum.federate(sites, out=given.out / name, **own)
        attacks = {row.metric: str(row.estimate) for row in job.rows if row.metric in MEMBERSHIP}
        return classified(job.out, given.out, name) | attacks

    return {
        FEDAVG: partial(together, FEDAVG, FEDAVG),
        "pooled": lambda: apart("pooled", given.out / "pictures" / "pooled.npz"),
        "median": partial(together, "median", "median"),
        "poisoned site c, median": partial(together, "median-poisoned", "median", TurnedSite),
        "epsilon 8 at each site": lambda: attacked("private", {"privacy.epsilon": 8.0, "privacy.delta": 1e-4}),
        "no budget": lambda: attacked("without", {}),
        "poisoned site c, fedavg": partial(together, "fedavg-poisoned", FEDAVG, TurnedSite),
    }


class TurnedSite(Site):
    """A site that, where it is the poisoned one, sends the change of its weights with the sign turned."""

    def answer(self, message: SiteMessage) -> SiteMessage:
        reply = super().answer(message)
        if message.kind != "round" or self.name != POISONED:
            return reply
        return replace(reply, arrays={name: self._turned(message, name, one) for name, one in reply.arrays.items()})

    def _turned(self, message: SiteMessage, name: str, own: np.ndarray) -> np.ndarray:
        """2 common - own, of averaged weights too; variances stay, as none may fall below 0."""
        common = message.arrays.get(name.removeprefix(AVERAGED))
        if common is None or own.dtype.kind != "f" or name.endswith(VARIANCE):
            return own
        return (2 * common - own).astype(own.dtype)


def over_rounds(given: Any) -> Routes:
    """Memory as the rounds of a small job end."""

    def measure() -> dict[str, Any]:
        sites = parted_pictures(given.out / "small", SMALL)
        process, levels = psutil.Process(), list[float]()

        class Levels(logging.Handler):
            """Keeps the memory at the end of each round."""

            def emit(self, line: logging.LogRecord) -> None:
                if line.getMessage().startswith("round "):
                    levels.append(process.memory_info().rss / 2**20)

        logger, handler = logging.getLogger("hilum"), Levels(logging.INFO)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        asked = {"training.steps": 2 * MEMORY_ROUNDS, "training.batch": 8}
        usual = {"device": "cpu", "threads": 1, "everything": True, "overwrite": True, "assignments": asked}
        hilum.federate(sites, out=given.out / "rounds", rounds=MEMORY_ROUNDS, **usual)
        logger.removeHandler(handler)
        settled, last = levels[MEMORY_ROUNDS // 6 - 1], levels[-1]
        figures = {f"MiB after round {MEMORY_ROUNDS // 6}": settled, f"after round {len(levels)}": last}
        grown = (last - settled) / settled
        return {**figures, "largest": max(levels), "grown %": 100 * grown, "reached": abs(grown) <= ASKED_LEVEL}

    return {"thirty rounds": measure}


class MemoryWatch(threading.Thread):
    """The most memory that this process and all that it started have together, in MiB, and of how many."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.processes, self.ended = 0.0, 0, threading.Event()

    def run(self) -> None:
        """Look every second."""
        while not self.ended.wait(1.0):
            levels = list[float]()
            for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
                with suppress(psutil.Error):
                    levels.append(one.memory_full_info().pss / 2**20)
            if sum(levels) > self.most:
                self.most, self.processes = sum(levels), len(levels)


@contextmanager
def watched(figures: dict[str, Any]) -> Iterator[None]:
    """Takes down seconds, memory, and what passed the loopback, with whatever else talks there."""
    (watch := MemoryWatch()).start()
    began, before = time.monotonic(), psutil.net_io_counters().bytes_sent
    yield
    watch.ended.set()
    sent = (psutil.net_io_counters().bytes_sent - before) / 1e6
    figures |= {"seconds of the job": time.monotonic() - began, "MB of the machine's network": sent}
    figures |= {"MiB of all processes": watch.most, "processes": watch.processes}


def over_carriers(given: Any) -> Routes:
    """Seconds, bytes and memory of three rounds of a small job."""

    def carry(transport: str) -> dict[str, Any]:
        sites, figures = parted_pictures(given.out / "small", SMALL), dict[str, Any]()
        asked = {"training.steps": 4 * CARRIED_ROUNDS, "training.batch": 8}
        usual = {"device": "cpu", "threads": 1, "everything": True, "overwrite": True, "assignments": asked}
        usual |= {"rounds": CARRIED_ROUNDS, "transport": transport, "deterministic": True}
        with watched(figures):
            job = hilum.federate(sites, out=given.out / transport, **usual).out
        traffic = pd.read_csv(job / "federation" / "traffic.csv")
        sent = traffic[(traffic["round"] > 0) & (traffic["kind"] == "round")]["bytes"].sum()
        answers = pd.read_csv(job / "federation" / "rounds.csv")["seconds"].mean()
        figures |= {"MB a round": sent / 1e6 / CARRIED_ROUNDS, "seconds of a site's answer": answers}
        return figures | {"weights": hashlib.sha256((job / WEIGHTS).read_bytes()).hexdigest()[:12]}

    def carry_theirs() -> dict[str, Any]:
        """NVFlare's own FedAvg by such processes, on as many numbers as our network has; its trainer adds 1 to each."""
        folder, figures, port = given.out.absolute() / "theirs", dict[str, Any](), parties.take_port("localhost", 0)
        shutil.rmtree(folder, ignore_errors=True)
        nvflare_carrier.provision_kits(FederationFile(tuple(SHARES), "localhost", port), folder)
        job, processes = their_job(folder / "job", given.out / "local" / WEIGHTS), PartyProcesses(folder)
        server, *sites = (party_kits.read_kit(folder / one) for one in ("server", *SHARES))
        with watched(figures), mock.patch.object(party_kits, "OURS", THEIRS), ExitStack() as ends:
            ends.callback(processes.end)
            for kit in (server, *sites):
                kit.write()
                processes.start(kit)
            with nvflare_carrier.open_session(server, 120.0, lambda: None) as session:
                while len(session.get_system_info().client_info) < len(sites):
                    time.sleep(0.5)
                session.wait_for_job(session.submit_job(str(job)), timeout=300.0, poll_interval=0.5)
        return figures

    ways = {"local, one process": "local", "mtls, NVFlare": "mtls"}
    return {**{name: partial(carry, one) for name, one in ways.items()}, "NVFlare's own FedAvg": carry_theirs}


def their_job(folder: Path, weights: Path) -> Path:
    """A job of NVFlare's own controller, persistor and trainer, in its layout, which begins with these numbers."""
    (place := folder / "app" / "config").mkdir(parents=True)
    numbers = np.concatenate([one.ravel() for one in safetensors.load_file(weights).values()], dtype=np.float32)
    np.save(start := folder / "start.npy", numbers)
    begins = {"id": "persistor", "path": THEIRS[1], "args": {"source_ckpt_file_full_name": str(start)}}
    workflow = {"id": "w", "path": THEIRS[0], "args": {"num_clients": len(SHARES), "num_rounds": CARRIED_ROUNDS}}
    server = {"format_version": 2, "workflows": [workflow], "components": [begins]}
    client = {"format_version": 2, "executors": [{"tasks": ["*"], "executor": {"path": THEIRS[2]}}], "components": []}
    meta = {"name": "theirs", "deploy_map": {"app": ["@ALL"]}, "min_clients": len(SHARES), "resource_spec": {}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (place / "config_fed_server.json").write_text(json.dumps(server))
    (place / "config_fed_client.json").write_text(json.dumps(client))
    return folder


PARTS: Mapping[str, Callable[[Any], Routes]] = {
    "hippocampus": over_scanners,
    "pneumonia": over_classes,
    "rounds": over_rounds,
    "carriers": over_carriers,
}


def parted_pictures(folder: Path, of_one: int | None = None) -> dict[str, Path]:
    """{site: its archive}, and `pooled.npz` with all of them; of_one: fewer pictures of a site, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {site: folder / f"pneumoniamnist_{site}.npz" for site in SHARES}
    if not (folder / "pooled.npz").is_file():
        whole = np.load(PICTURES)
        images, labels = whole["train_images"], whole["train_labels"]
        rng = np.random.default_rng(0)
        with_it, without = (
            rng.permutation(np.flatnonzero((labels.ravel() == PNEUMONIA) == ill)) for ill in (True, False)
        )
        every = list[np.ndarray]()
        for site, (count, share) in SHARES.items():
            ill = round(share * (of_one or count))
            chosen = np.concatenate([with_it[:ill], without[: (of_one or count) - ill]])
            with_it, without = with_it[ill:], without[(of_one or count) - ill :]
            np.savez(paths[site], train_images=images[chosen], train_labels=labels[chosen])
            every.append(chosen)
        chosen = np.concatenate(every)
        np.savez(folder / "pooled.npz", train_images=images[chosen], train_labels=labels[chosen])
    return paths


def classified(run: Path, out: Path, name: str) -> dict[str, Any]:
    """AUROC of the test part, and its difference from fedavg on the same pictures."""
    place = out / f"{name}.scored"
    hilum.evaluate(run, PICTURES, split="test", out=place, overwrite=True, threads=1, device="cpu")
    row: dict[str, Any] = {"auroc": auroc(*answers_of(place)), "steps of a site": steps_of(run)}
    if name != FEDAVG and (out / f"{FEDAVG}.scored").is_dir():
        row |= {"less fedavg": apart_from(place, out / f"{FEDAVG}.scored")}
    if name == "median-poisoned" and (out / "median.scored").is_dir():
        row |= {"less clean median": apart_from(place, out / "median.scored")}
    return row


def answers_of(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """(probability of pneumonia, whether it is there) of each picture, by case."""
    table = pd.read_csv(place / "cases.csv", dtype={"reference": str}).sort_values("case")
    return table[f"probability_{PNEUMONIA}"].to_numpy(float), (table["reference"] == str(PNEUMONIA)).to_numpy()


def auroc(scores: np.ndarray, is_ill: np.ndarray) -> float:
    """By ranks: Mann and Whitney."""
    ranks, ill = stats.rankdata(scores), int(is_ill.sum())
    return float((ranks[is_ill].sum() - ill * (ill + 1) / 2) / (ill * (len(scores) - ill)))


def apart_from(one: Path, other: Path) -> str:
    """The difference of AUROC with a 95 % interval of resampled pictures, paired."""
    (ours, is_ill), (theirs, same) = answers_of(one), answers_of(other)
    assert (is_ill == same).all()
    rng, found = np.random.default_rng(0), list[float]()
    for _ in range(DRAWS):
        resampled = rng.integers(len(ours), size=len(ours))
        found.append(auroc(ours[resampled], is_ill[resampled]) - auroc(theirs[resampled], is_ill[resampled]))
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{auroc(ours, is_ill) - auroc(theirs, is_ill):+.4f} ({low:+.4f} to {high:+.4f})"


def steps_of(run: Path) -> int:
    """Steps that one site has made."""
    logs = [*run.glob("log.csv"), *Path(f"{run}.sites").glob("*/log.csv")]
    return int(pd.read_csv(logs[0])["step"].max())


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


def half_known(sites: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """The sites, of which some have contoured one of the two structures alone; made once."""
    found = dict(sites)
    for site, (number, name) in KNOWN.items():
        place = found[site] = folder / "known" / site
        rows = ["case,known"]
        for path in sites[site].rglob("*.nii.gz"):
            (target := place / path.relative_to(sites[site])).parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "images":
                target.write_bytes(path.read_bytes())
                rows.append(f"{path.name.partition('.')[0]},{name}")
                continue
            mask = nibabel.load(path)
            contoured = np.where(np.asarray(mask.dataobj) == number, number, 0).astype(np.uint8)
            nibabel.Nifti1Image(contoured, mask.affine).to_filename(target)
        (place / "known.csv").write_text("\n".join(rows) + "\n")
    return found


def scored(run: Path, test: Path, given: Any, name: str) -> dict[str, Any]:
    """Mean Dice of the test cases; the table of cases is kept in `<name>.scored`."""
    out = given.out / f"{name}.scored"
    hilum.evaluate(run, test, labels=LABELS, out=out, overwrite=True, threads=1, device="cpu")
    dice = dice_by_case(out)
    row = {"dice": float(dice.mean()), "steps": steps_of(run), "minutes": given.minutes, "folder": name}
    return {**row, **{f"dice_{site}": float(dice[dice.index.str.startswith(f"{site}_")].mean()) for site in SIZES}}


def with_changes(rows: Mapping[str, dict[str, Any]], out: Path) -> dict[str, dict[str, Any]]:
    """The rows of routes, with the difference from fedavg by case where both were scored here."""
    found, common = dict(rows), out / f"{FEDAVG}.scored"
    for name, row in rows.items():
        if "folder" not in row:  # of an earlier fedavg
            found[name] = {key: one for key, one in row.items() if key != "fedavg minus it"}
        scored_here = out / f"{row.get('folder')}.scored"
        if row.get("folder") in (None, FEDAVG) or not (scored_here.is_dir() and common.is_dir()):
            continue
        change = (dice_by_case(common) - dice_by_case(scored_here)).dropna()
        mean = intervals.bootstrap(change.to_numpy(), change.index.to_numpy(str), seed=0, exact=False)
        found[name] = {**row, "fedavg minus it": f"{mean.value:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"}
    return found


def dice_by_case(out: Path) -> pd.Series:
    table = pd.read_csv(out / "cases.csv")
    table["case"] = table["case"].str.rpartition("/")[2]
    return table.groupby("case")["dice"].mean()


def scanner_page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of routes, with the difference of each from fedavg by case."""
    heads = ["route", "minutes", "steps of a site", "Dice", "fedavg minus it", *(f"scanner {site}" for site in SIZES)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in rows.items():
        by_scanner = [f"{row[f'dice_{site}']:.3f}" for site in SIZES]
        own = [f"{row['minutes']:g}", str(row["steps"]), f"{row['dice']:.3f}", row.get("fedavg minus it", "")]
        lines.append(f"| {' | '.join([name, *own, *by_scanner])} |")
    intro = (
        "Hippocampus. Scanners are simulated: contrast, field, blur and noise of each site's images are changed by a "
        "rule of their own. One training of each route, on one core that other work shared; the five sites of a job "
        "take turns within its minutes. Intervals are of test cases (paired), not of trainings. Volumes may be of one "
        "person, since the names of the files do not tell. Where three sites know one structure, b and e know the "
        "anterior part, d the posterior one."
    )
    return "\n".join([intro, "", *lines])


def plain_page(intro: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"| {name} | {row_words(row)} |" for name, row in rows.items()]
    return "\n".join([intro, "", "| route | figures |", "|---|---|", *lines])


PAGES: Mapping[str, Callable[[Mapping[str, Mapping[str, Any]]], str]] = {
    "hippocampus": scanner_page,
    "pneumonia": partial(
        plain_page,
        "PneumoniaMNIST over five sites of 1600 to 400 pictures, of which 90 to 30 % show pneumonia; its test part. "
        "One training of each route, on one core; intervals are of test pictures (paired), not of trainings.",
    ),
    "rounds": partial(plain_page, "Memory of one process over thirty rounds of five sites of 40 pictures."),
    "carriers": partial(
        plain_page,
        "Three rounds of five sites of 40 pictures, on one machine. A site's answer takes in its steps; seconds of the "
        "job take in the start and end of all processes. NVFlare's own FedAvg carries as many numbers, without a step.",
    ),
}


if __name__ == "__main__":
    main()
