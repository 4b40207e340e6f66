"""Cost of volumes as hospitals have them: CPU seconds and memory by the number of slices.

python bench/clinical_sizes.py --threads 1 --record
python bench/clinical_sizes.py --small

Part `look`: `check` of one case, an uncompressed int16 volume of 512 x 512 voxels a slice with a structure in it. Part
`second look`: the same again in another process, which finds in the cache what the first has kept. Part `prepare`: what
training does with it first (crop, orient, resample to 1.5 mm, normalise, store), and the share of time in which a
network then waits for patches of the case, linked 60 times.
Part `predict`: the network that is planned for the case, without training, predicts it without windows in the air,
`predict all` with them. Part `same weights`: the commands of both programs predict the case by the weights of the
nnU-Net folder of the test data, without mirroring, from start to written file. Part `score`: a map of 20 structures.
nnU-Net looks at the same case (its fingerprint) and
prepares it to the same spacing, in an environment of its own. The volumes are simulated on the spot. What was measured
stays in the folder of the benchmarks, so that a second run goes on where the first ended; --anew measures all again.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from beside import HILUM, PLACE, Program, arguments, failures, interleaved, peer, record, versions

SLICES, SMALL = (100, 300, 600), (8,)
SIDE_VOXELS = 512
SAME = "same weights"
PARTS = ("look", "second look", "prepare", "predict", "predict all", SAME, "score")
MEASURED = PLACE / "clinical_sizes.json"
SIDE = Path(__file__).resolve().parent / "sides" / "clinical_sizes.py"
# Of what is predicted and scored; it takes long, so that prediction is measured up to so many slices.
ANSWERS, PREDICTED = SIDE.with_name("clinical_answers.py"), 100
NNUNET, BESIDE = SIDE.with_name("clinical_nnunet.py"), ("look", "prepare", SAME)
# Seconds after which a command is ended.
AT_MOST = 1000.0
NOW, THEIRS = "this version", "nnU-Net"


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--slices", type=int, nargs="+", default=SLICES)
    parser.add_argument("--before", type=Path, help="the src folder of an earlier version, measured beside this one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts; the others stay as they are")
    parser.add_argument("--anew", action="store_true", help="measure all again")
    asked = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    sources = {NOW: None, **({"before": asked.before} if asked.before else {})}
    python = peer("nnunet")
    cells = json.loads(MEASURED.read_text()) if MEASURED.is_file() and not (asked.anew or asked.small) else {}
    for slices in sorted(SMALL if asked.small else asked.slices):
        missing = {
            name: source
            for name, source in sources.items()
            if not {f"{part} {slices} {name}" for part in _parts(slices, asked.only)} <= cells.keys()
        }
        wanted = [part for part in BESIDE if part in asked.only and f"{part} {slices} {THEIRS}" not in cells]
        for row in _rows(slices, missing, dict.fromkeys(wanted, python), asked):
            cells[f"{row['part']} {slices} {row['program']}"] = row
            if not asked.small:
                MEASURED.write_text(json.dumps(cells, indent=1))
    text = _words(pd.DataFrame(list(cells.values())))
    print(text)
    if asked.record:
        record(
            "clinical_sizes",
            "Volumes of clinical size",
            text,
            {"runs": list(cells.values()), "peer": versions("nnunet")},
        )


def _rows(
    slices: int, sources: dict[str, Path | None], beside: dict[str, Path], asked: Namespace
) -> list[dict[str, object]]:
    """Rows of the parts of each version, and of those parts that nnU-Net takes too by its Python."""
    if not sources and not beside:
        return []
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        folder = str(Path(place) / "data")
        _draw(Path(folder), slices)
        keeping = {"HILUM_CACHE": str(Path(place) / "cache")}
        tables, threads = {}, asked.threads
        for part in _parts(slices, asked.only):
            if part == SAME:
                tables[part] = interleaved(_same_weights(Path(place), beside.get(part), asked), 1, threads)
                continue
            side = ANSWERS if part.startswith(("predict", "score")) else SIDE
            command = [sys.executable, str(side), part.split()[-1], folder, str(threads)]
            programs = [
                Program(name, command, {**keeping, **({"PYTHONPATH": str(source)} if source else {})})
                for name, source in sources.items()
            ]
            if part in beside:
                programs.append(Program(THEIRS, [str(beside[part]), str(NNUNET), part, folder, str(threads)]))
            if programs:
                tables[part] = interleaved(programs, 1, threads)
    return [
        {**row, "part": part, "slices": slices}
        for part, table in tables.items()
        for row in json.loads(table.to_json(orient="records"))
    ]


def _parts(slices: int, only: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for part in only if slices <= PREDICTED or not part.startswith(("predict", SAME)))


def _same_weights(place: Path, python: Path | None, asked: Namespace) -> list[Program]:
    """The commands that predict the case by the weights of nnU-Net's folder, ours and theirs."""
    [case], inputs, model = (place / "data" / "imagesTr").iterdir(), place / "same", asked.data / "nnunet_hippocampus"
    inputs.mkdir()
    with gzip.open(inputs / f"{case.name}.gz", "wb", compresslevel=1) as packed:
        packed.write(case.read_bytes())
    ours = [HILUM, "predict", str(model), str(inputs), "--no-mirror", "--allow-large", "--out", str(place / "ours")]
    programs = [Program(NOW, [*ours, "--device", "cpu", "--threads", str(asked.threads)], at_most=AT_MOST)]
    if python is not None:
        theirs = [str(python), str(python.with_name("nnUNetv2_predict_from_modelfolder")), "-i", str(inputs)]
        theirs += ["-o", str(place / "theirs"), "-m", str(model), "-f", "all", "-device", "cpu", "--disable_tta"]
        programs.append(Program(THEIRS, [*theirs, "-npp", "1", "-nps", "1"], at_most=AT_MOST))
    return programs


def _draw(data: Path, slices: int) -> None:
    """A case in nnU-Net's folders: air, a body with lungs, an organ and noise, in Hounsfield units."""
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True)
    side = np.linspace(-1, 1, SIDE_VOXELS, dtype=np.float32)
    x, y = side[:, None], side[None]
    shape = (SIDE_VOXELS, SIDE_VOXELS, slices)
    voxels, labels = np.empty(shape, np.int16, order="F"), np.zeros(shape, np.uint8, order="F")
    noise = np.random.default_rng(0).normal(0, 20, (9, SIDE_VOXELS, SIDE_VOXELS)).astype(np.float32)
    for k in range(slices):
        z = 2 * k / slices - 1
        plane = np.where(x**2 / 0.7 + y**2 / 0.4 < 1, np.float32(40), np.float32(-1000))
        for middle in (-0.4, 0.4):
            plane[(x - middle) ** 2 / 0.06 + y**2 / 0.12 + z**2 / 0.5 < 1] = -850
        organ = x**2 / 0.02 + (y - 0.2) ** 2 / 0.03 + z**2 / 0.1 < 1
        plane[organ], labels[..., k] = 120, organ
        voxels[..., k] = np.rint(plane + noise[k % len(noise)]).clip(-1024, 3071)
    grid = np.diag([-0.8, -0.8, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(voxels, grid), data / "imagesTr" / "c_000_0000.nii")
    nibabel.save(nibabel.Nifti1Image(labels, grid), data / "labelsTr" / "c_000.nii")
    declared = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": 1}
    (data / "dataset.json").write_text(json.dumps({**declared, "file_ending": ".nii"}))


def _words(table: pd.DataFrame) -> str:
    lines = [
        "A look at one case (`check`), an uncompressed int16 volume of 512 x 512 voxels a slice with one structure; "
        "CPU seconds without the start of Python, peak memory of the whole process. Before: when each measure "
        "read the volume anew and copied it. The second look is that of another process, by what the first has kept. "
        "`same weights` are whole commands, with the start of Python.",
        "",
        "| part | slices | stored image, MiB | version | CPU seconds | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for _, row in table[table["problem"] == ""].sort_values(["part", "slices", "program"]).iterrows():
        stored = SIDE_VOXELS**2 * row["slices"] * 2 / 2**20
        said, cells = _cost(row), [row["part"], row["slices"], f"{stored:.0f}", row["program"]]
        cells += [f"{said['cpu_seconds']:.2f}", f"{said['rss_mib']:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *_exponents(table), *(f"\n- {problem}" for problem in failures(table))])


def _cost(row: pd.Series) -> dict[str, float]:
    """What a part said of itself, or what the system says of a whole command."""
    if isinstance(row["said"], dict):
        return row["said"]
    return {"cpu_seconds": row["cpu_seconds"], "rss_mib": row["peak_mib"]}


def _exponents(table: pd.DataFrame) -> list[str]:
    """How CPU seconds grow with the voxels: 1 is in proportion."""
    found = []
    for (part, program), rows in table[table["problem"] == ""].groupby(["part", "program"]):
        seconds = [_cost(row)["cpu_seconds"] for _, row in rows.iterrows()]
        if len(seconds) > 1:
            power = np.polyfit(np.log(rows["slices"].astype(float)), np.log(seconds), 1)[0]
            found.append(f"- {part}, {program}: CPU seconds grow with voxels to the power of {power:.2f}.")
    return found


if __name__ == "__main__":
    main()
