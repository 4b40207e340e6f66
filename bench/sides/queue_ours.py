"""A worker of a node whose jobs sleep: python queue_ours.py URL SILENT_S JOB_S NAME LOG."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from isocenter.service.records.database import opened
from isocenter.service.records.jobs import RESULT, Job, Outcome
from isocenter.service.settings import read_settings
from isocenter.service.work.worker import Worker

url, silent, seconds, name, log = sys.argv[1:]


class Sleeper(Worker):
    """A worker whose every job takes the same time, and says when it begins."""

    def _outcome(self, job: Job, room: Path) -> Outcome:
        with Path(log).open("a") as file:
            file.write(f"{job.rule} {os.getpid()} {time.time()}\n")
        time.sleep(float(seconds))
        return Outcome(RESULT)


with tempfile.TemporaryDirectory() as folder:
    settings = read_settings(None, [], Path(folder), queue={"lease_s": float(silent)}, database={"url": url})
    Sleeper(settings, opened(url), [], name).work(threading.Event())
