"""Models that are pointed at, beside the program that they come from: seconds and memory of an image and of a prompt.

    python bench/foundation.py --record --repeats 2

SAM at the size of ViT-B with random weights, 1024 x 1024: what segment-anything 1.0 does and what Isocenter does take
turns, each in a process of its own with one thread. Asked: encoding at most 1.05 times the time and memory, and a
further prompt at most a twentieth of it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from beside import ROOT, Program, arguments, interleaved, markdown, ratio, record
from segment_anything import sam_model_registry

OURS, THEIRS = "Isocenter", "segment-anything"
MOST, SHARE = 1.05, 1 / 20
COLUMNS = {
    "encoding": "encoding, s",
    "encoding_mib": "memory of encoding, MiB",
    "first": "image and first prompt, s",
    "further": "further prompt, s",
}


def share_of_encoding(table: pd.DataFrame) -> float:
    """The seconds of a further prompt of ours, of those of encoding: the median of the runs."""
    told = [row["said"] for row in table.to_dict("records") if row["program"] == OURS and not row["problem"]]
    return statistics.median(one["further"] / one["encoding"] for one in told)


def main() -> None:
    """Measure, print, and record."""
    options = arguments(__doc__, repeats=2).parse_args()
    name, side = "vit_b", 1024
    with tempfile.TemporaryDirectory() as room:
        checkpoint = Path(room) / "sam.pth"
        torch.manual_seed(0)
        torch.save(sam_model_registry[name]().state_dict(), checkpoint)
        script = str(ROOT / "bench" / "sides" / "sam_encoding.py")
        programs = [
            Program(label, [sys.executable, script, which, str(checkpoint), name, str(side)])
            for label, which in ((OURS, "ours"), (THEIRS, "theirs"))
        ]
        table = interleaved(programs, options.repeats, 1)
    seconds, memory = (1 / ratio(table, OURS, THEIRS, column).value for column in ("encoding", "encoding_mib"))
    share = share_of_encoding(table)
    asked = [
        ("encoding: time of segment-anything", MOST, seconds),
        ("encoding: memory of segment-anything", MOST, memory),
        ("a further prompt: of the time of encoding", SHARE, share),
    ]
    lines = [
        f"| {what} | at most {most:g} | {found:.3g} | {'yes' if found <= most else 'no'} |"
        for what, most, found in asked
    ]
    text = "\n".join(
        ["| measure | asked | measured | reached |", "|---|---|---|---|", *lines, "", markdown(table, COLUMNS)]
    )
    print(text)
    if options.record:
        data = {"runs": table.to_dict("records"), "seconds": seconds, "memory": memory, "further": share}
        record("foundation", "SAM at the size of ViT-B beside segment-anything", text, data)


if __name__ == "__main__":
    main()
