"""The page of figures, made of the claims in `bench/figures.toml` and the records in `bench/results`.

python docs/write_figures.py        # writes docs/benchmarks.md
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, BENCH = ROOT / "docs" / "benchmarks.md", ROOT / "bench"
USUAL = "AMD EPYC, 2 cores, 24 GiB"
HEAD = """# Benchmarks

`python docs/write_figures.py` writes this page from `bench/figures.toml` and the records in `bench/results`.

What was asked, and what was reached, beside other programs in the same run where the first column names them. What was
not measured is not filled in. The last column leads to the [findings](../bench/findings/README.md): how each figure was
found out, with intervals, seeds and what failed; [how they are measured](how-to/bench.md). The machine is an AMD EPYC
with 2 cores, 24 GiB and no GPU where no other stands; where no day stands, the findings have it. A commit stands where
the script is no longer in `bench/`: it has it.

## Asked and reached, beside other programs

**†** Test cases of this set had a say in a setting of ours, so that the figure flatters us: RetinaMNIST and
PneumoniaMNIST in the number of epochs (which rests on training parts by now), hippocampus in mirroring, perhaps in the
learning rate of volumes, and in the statistics of a batch; AdrenalMNIST3D in smaller batches of volumes; ventricles,
breast ultrasound and vessels (CHASE-DB1) in coarser grids; vessels and gliomas in the size of windows of prediction;
blood smears (BCCD) in boxes that are learnt by their overlap; heads, slabs and unlike organs in when a motion is
applied. Not measured anew on fresh splits yet.

| asked | reached | day, machine | command | findings |
|---|---|---|---|---|
"""


def page() -> str:
    """The page: a row for each claim."""
    claims = tomllib.loads((BENCH / "figures.toml").read_text(encoding="utf-8"))["claim"]
    return HEAD + "".join(f"| {' | '.join(cells(claim))} |\n" for claim in claims)


def cells(claim: Mapping[str, Any]) -> Iterator[str]:
    """Asked, with the id at which links to the row end; reached, when and where, by which command; the findings."""
    records = [json.loads((BENCH / "results" / f"{part}.json").read_text(encoding="utf-8")) for part in claim["parts"]]
    yield f'<a id="{claim["id"]}"></a>{claim["asked"]}'
    yield claim["reached"]
    yield "; ".join(dict.fromkeys(map(origin, records)))
    yield "; ".join(dict.fromkeys(map(command, records)))
    yield ", ".join(f"[{place.partition('.md')[0]}](../bench/findings/{place})" for place in claim["findings"])


def origin(record: Mapping[str, Any]) -> str:
    """The day, and the machine where it is not the usual one."""
    machine = record["machine"].partition(", Linux")[0]
    return record["day"] if machine == USUAL else f"{record['day']}, {machine}"


def command(record: Mapping[str, Any]) -> str:
    """The command as it was given, with the commit that has its script where that is gone."""
    script = record["command"].split()[1]
    words = f"`{record['command'].replace('|', chr(92) + '|')}`"
    return words if (ROOT / script).is_file() else f"{words} at {record['commit'].removesuffix('-dirty')}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
