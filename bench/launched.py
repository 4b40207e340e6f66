"""Starts one command, waits for it, and says what the system counted: `launched.py PIPE FIRST CORES COMMAND...`

A small process between the bench and the program: the system's count of a program's largest memory begins with that
of the process which starts it, and the bench has torch and pandas loaded. Standard library only, for that reason.
The command may use CORES of the cores from number FIRST on. Writes to the file descriptor PIPE: the program's process
id on one line, and when it has ended a JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> None:
    (pipe, first, cores), command = map(int, sys.argv[1:4]), sys.argv[4:]
    with os.fdopen(pipe, "w", buffering=1) as tell:
        if hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))
            if not (chosen := allowed[first : first + cores]):
                refused = f"cores from number {first} on were asked for: the bench itself may use {len(allowed)}"
                print(json.dumps({"refused": refused}), file=tell)
                return
            os.sched_setaffinity(0, chosen)
        began = time.perf_counter()
        try:
            program = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            print(json.dumps({"refused": str(error)}), file=tell)
            return
        print(program.pid, file=tell)
        _, status, usage = os.wait4(program.pid, 0)
        seconds = time.perf_counter() - began
        program.returncode = os.waitstatus_to_exitcode(status)
        # macOS counts bytes, Linux KiB.
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        found = {"seconds": seconds, "peak": peak, "cpu": usage.ru_utime + usage.ru_stime, "code": program.returncode}
        print(json.dumps(found), file=tell)


if __name__ == "__main__":
    main()
