"""Programs in processes of their own, without the seconds that each would import torch or MONAI for.

A first Python imports them, and every program is a fork of it: nothing of one program is left for the next.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

# It forks for each line, which says what a fresh `python` would be started with; the answer is the exit code.
SERVER = """
import json, os, runpy, sys
for line in sys.stdin:
    asked = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    option, program, *words = asked["words"]
    sys.path.insert(0, "")
    sys.argv = [option, *words]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    sys.exit()
"""


@cache
def _server(imports: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"{imports}\n{SERVER}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    return server


def run(*words: object, after: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python` with these words, "-m" or "-c" first, run in a folder by a fork of a Python that has run `after`."""
    server = _server(after)
    assert server.stdin is not None and server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        asked = {
            "words": [str(word) for word in words],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ),
            "out": out.name,
            "err": err.name,
        }
        server.stdin.write(f"{json.dumps(asked)}\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(list(words), code, out.read(), err.read())
