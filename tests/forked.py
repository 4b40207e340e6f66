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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from hilum.runtime.package import backend_trial, certification

# What a command needs to train: with it, that takes as long as it computes.
READY_TO_TRAIN = """
import lightning_fabric, matplotlib.figure, nibabel, pandas, pyarrow, scipy.ndimage, scipy.stats, torch._dynamo
import hilum.cli
hilum.train, hilum.predict, hilum.package
"""
# It forks for each line, which says what a fresh `python` would be started with; the answer is the exit code.
SERVER = """
import json, os, runpy, sys
for line in sys.stdin:
    asked = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY), number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    option, program, *words = asked["words"]
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
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


@contextmanager
def trials() -> Iterator[None]:
    """Backends of a package are tried in forks too.

    For tests of what a certificate says of a model; those of certificates themselves try them as they are.
    """

    def tried(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-P", "-m", backend_trial.__name__]
        return run(*command[2:])

    with pytest.MonkeyPatch.context() as patch:
        named = SimpleNamespace(run=tried, TimeoutExpired=subprocess.TimeoutExpired)
        patch.setattr(certification, "subprocess", named)
        yield


def run(*words: object, after: str = READY_TO_TRAIN, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python` with these words, "-m" or "-c" first, run in a folder by a fork of a Python that has run `after`.

    Its environment is that of the tests, and so is its folder where none is given.
    """
    server = _server(after)
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as room, ThreadPoolExecutor(2) as readers:
        pipes = {name: Path(room, name) for name in ("out", "err")}
        for pipe in pipes.values():
            os.mkfifo(pipe)
        asked = {
            "words": [str(word) for word in words],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ),
            **{name: str(pipe) for name, pipe in pipes.items()},
        }
        server.stdin.write(f"{json.dumps(asked)}\n")
        server.stdin.flush()
        out, err = readers.map(Path.read_text, pipes.values())  # until all that the program started has ended too
        return subprocess.CompletedProcess(list(words), int(server.stdout.readline()), out, err)
