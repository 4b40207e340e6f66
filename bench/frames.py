"""Latency of a stream of frames: p50 and p99 a frame, and the memory that many frames take beside few.

python bench/frames.py                 # 5,000 frames of 512 x 512
python bench/frames.py --frames 1000   # fewer
python bench/frames.py --small

A U-Net of 16 to 64 channels sees each frame in windows of 256 x 256, as it would come from a probe. A second run of
a tenth of the frames says what memory does not come from their number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from beside import Program, arguments, failures, interleaved, markdown, record

SIDE = Path(__file__).resolve().parent / "sides" / "frames_ours.py"
FRAMES, SIZE = 5000, 512
COLUMNS = {"p50_ms": "p50, ms", "p99_ms": "p99, ms", "longest_ms": "longest, ms", "peak_mib": "peak memory, MiB"}


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--frames", type=int, default=FRAMES)
    asked = parser.parse_args()
    frames, size, repeats = (40, 128, 1) if asked.small else (asked.frames, SIZE, asked.repeats)
    programs = [
        Program(f"{count} frames", [sys.executable, str(SIDE), str(count), str(size)])
        for count in (frames, frames // 10)
    ]
    table = interleaved(programs, repeats, asked.threads)
    text = f"Frames of {size} x {size}.\n\n{markdown(table, COLUMNS)}"
    text = "\n".join([text, *(f"* {one}" for one in failures(table))])
    print(text)
    if asked.record:
        runs = json.loads(table.to_json(orient="records"))
        record("frames", "A stream of frames", text, {"frames": frames, "size": size, "runs": runs})


if __name__ == "__main__":
    main()
