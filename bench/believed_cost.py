"""What calibration, sets, uncertainty and the gate add to `predict`.

    python bench/believed_cost.py --threads 1 --record

Two trainings of a few steps on the same data: by default, and with none of it (`task.calibration_method=none`,
`inference.uncertainty=none`, `guard.gate=false`), whose predictions state no uncertainty and refuse nothing.
Radiographs are those of PneumoniaMNIST, volumes those of AdrenalMNIST3D. Each run is a process of its own, start-up
included.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from added_cost import KINDS, images_of_test, short_training
from beside import ISOCENTER, PLACE, Program, arguments, failures, interleaved, markdown, ratio, record

# Times as long as without.
ASKED = 1.15
WITH, WITHOUT = "predict", "predict, none of it"
NONE_OF_IT = ("task.calibration_method=none", "inference.uncertainty=none", "guard.gate=false")


def main() -> None:
    given = arguments(__doc__, repeats=5).parse_args()
    repeats, parts, words = 1 if given.small else given.repeats, [], list[str]()
    PLACE.mkdir(exist_ok=True)
    for kind, (name, count) in KINDS.items():
        data, work = given.data / "medmnist" / f"{name}.npz", PLACE / "work"
        off = [word for setting in NONE_OF_IT for word in ("--set", setting)]
        runs = {
            WITH: short_training(work / f"added-cost-{kind}", data, given.threads),
            WITHOUT: short_training(work / f"believed-cost-{kind}", data, given.threads, *off),
        }
        with tempfile.TemporaryDirectory(dir=PLACE) as out:
            images = images_of_test(data, Path(out) / "images", 8 if given.small else count)
            call = [ISOCENTER, "predict", "--abstain", "mark"]  # a refused image would cost nothing
            programs = [
                Program(what, [*call, str(run), str(images), "--out", f"{out}/{run.name}", "--overwrite"])
                for what, run in runs.items()
            ]
            timed = interleaved(programs, repeats, given.threads)
        timed["program"] = f"{kind}: " + timed["program"]
        parts.append(timed)
        times = ratio(timed, f"{kind}: {WITHOUT}", f"{kind}: {WITH}", "cpu_seconds")
        words.append(
            f"{kind}: {times.value:.2f} ({times.low:.2f} to {times.high:.2f}) times the processor seconds "
            f"(asked: at most {ASKED:g})."
        )
    table = pd.concat(parts, ignore_index=True)
    columns = {"seconds": "seconds", "cpu_seconds": "processor seconds", "peak_mib": "peak memory, MiB"}
    text = "\n\n".join([markdown(table, columns), *words, *(f"Failed: {one}." for one in failures(table))])
    print(text)
    if given.record:
        record("believed_cost", "What belief costs `predict`", text, {"runs": table.to_dict("records")})


if __name__ == "__main__":
    main()
