"""How long a training step takes by how idle threads wait, alone and beside another program.

    python bench/waiting_threads.py

Residual U-Net, batch 4 of 40 x 56 x 40, bfloat16, two threads; each number is the median of a fresh process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

STEPS, WARMUP = 6, 1
BUSY = "while True: pass"
# Above what any trial takes; a companion that outlived its trial would spoil the next.
TRIAL_SECONDS = 200
# Until the companion has imported what it needs and computes.
START_SECONDS = 8
POLICIES = {"spinning (the default)": {}, "sleeping (passive)": {"OMP_WAIT_POLICY": "passive"}}


def main() -> None:
    if sys.argv[1:] == ["step"]:
        print(_seconds_a_step())
        return
    while sys.argv[1:] == ["steps"]:  # the companion, until it is killed
        _seconds_a_step()
    print(f"| on the machine | {' | '.join(POLICIES)} |\n|---|---|---|")
    for neighbour in ("nothing else", "one busy program", "a second training"):
        seconds = [_trial(neighbour, environment) for environment in POLICIES.values()]
        print(f"| {neighbour} | {' | '.join(f'{one:.2f}' for one in seconds)} |", flush=True)


def _trial(neighbour: str, environment: dict[str, str]) -> float:
    """s a step in a process of its own, while the companion runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    ours = [sys.executable, str(Path(__file__)), "step"]
    companion = {"one busy program": [sys.executable, "-c", BUSY], "a second training": [*ours[:-1], "steps"]}.get(
        neighbour
    )
    with ExitStack() as stack:
        if companion is not None:
            other = subprocess.Popen(companion, env={**clean, **environment}, stdout=subprocess.DEVNULL)
            stack.callback(other.wait)
            stack.callback(other.kill)
            time.sleep(START_SECONDS)
        done = subprocess.run(
            ours, env={**clean, **environment}, capture_output=True, text=True, check=True, timeout=TRIAL_SECONDS
        )
    return float(done.stdout)


def _seconds_a_step() -> float:
    import torch  # only the processes that compute need it

    from isocenter.networks import factory
    from isocenter.values import Dense

    torch.set_num_threads(2)
    size = {"width": 16, "widest": 128, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]}
    network = factory.build("unet", 1, 3, {"mask": Dense(3)}, size)
    images = torch.randn(4, 1, 40, 56, 40)
    times = []
    for _ in range(WARMUP + STEPS):
        mark = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(images)["mask"]
        outputs.float().pow(2).mean().backward()
        times.append(time.perf_counter() - mark)
    return statistics.median(times[WARMUP:])


if __name__ == "__main__":
    main()
