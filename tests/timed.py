"""Runs a command and prints how long it took: seconds on the wall, and those of processors."""

from __future__ import annotations

import resource
import subprocess
import sys
import time


def main() -> int:
    start = time.monotonic()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - start:.0f} s wall, {spent.ru_utime + spent.ru_stime:.0f} processor seconds")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
