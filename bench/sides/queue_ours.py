"""A worker of a node whose jobs sleep: python queue_ours.py URL SILENT_S JOB_S NAME LOG."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from isocenter.service import configuration
from isocenter.service.records import record_database
from isocenter.service.records.job_queue import RESULT, Job, JobOutcome
from isocenter.service.work.worker import JobWorker

url, silent, seconds, name, log = sys.argv[1:]


class Sleeper(JobWorker):
    """A worker whose every job takes the same time, and says when it begins."""

    def _outcome(self, job: Job, room: Path) -> JobOutcome:
        with Path(log).open("a") as file:
            file.write(f"{job.rule} {os.getpid()} {time.time()}\n")
        time.sleep(float(seconds))
        return JobOutcome(RESULT)


with tempfile.TemporaryDirectory() as folder:
    settings = configuration.read_settings(
        None, [], Path(folder), queue={"lease_s": float(silent)}, database={"url": url}
    )
    Sleeper(settings, record_database.open_database(url), [], name).work(threading.Event())
