"""A worker of Procrastinate whose jobs sleep: python queue_procrastinate.py URL SILENT_S JOB_S PRIORITY NAME LOG.

With --add COUNT in place of name and log: its tables, and the jobs. What has to be written beside the job itself is the
periodic task, which is that of Procrastinate's page "Retry stalled jobs", and a table for results. PRIORITY is that of
the task; the jobs have 0, as it has on that page.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import procrastinate
import psycopg

url, silent, seconds, priority, name, last = sys.argv[1:]
logging.getLogger("procrastinate").setLevel(logging.ERROR)  # it warns of an app in the main module
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
HEARTBEAT_S = float(silent) / 3


@app.task(name="work")
def work(number: int) -> None:
    with Path(last).open("a") as file:
        file.write(f"{number} {os.getpid()} {time.time()}\n")
    time.sleep(float(seconds))
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO results VALUES (%s)", (number,))


@app.periodic(cron="*/2 * * * * *")
@app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs", priority=int(priority), pass_context=True)
async def retry_stalled_jobs(context: procrastinate.JobContext, timestamp: int) -> None:
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=float(silent)):
        await app.job_manager.retry_job(job)


if name == "--add":
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE results (number integer)")
    with procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url)).open() as adding:
        adding.schema_manager.apply_schema()
        task = adding.configure_task("work")
        task.batch_defer(*({"number": number} for number in range(int(last))))
else:
    app.run_worker(name=name, update_heartbeat_interval=HEARTBEAT_S, stalled_worker_timeout=float(silent))
