"""A node without processes and ports: its keeper and a worker, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from hilum.service import configuration
from hilum.service._keeper import Keeper
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records import tables
from hilum.service.routing import routing_rules
from hilum.service.work.warm_models import WarmModels
from hilum.service.work.worker import JobWorker
from service.databases import with_tables

# Of the threshold of its model: the ball of `mr` is above it.
LEVEL = 40.5


class SmallNode:
    """The keeper and one worker of a node, without processes and ports.

    answers, explain: of its models, kinds of DICOM objects and whether maps explain them
    """

    def __init__(
        self, folder: Path, *models: Path, answers: Sequence[str] = (), explain: str = "none", **sections
    ) -> None:
        sections = {"study": {"complete_after_s": 0}, "node": {"min_free_gb": 0}, **sections}
        self.settings = configuration.read_settings(None, models, folder, **sections)
        changed = {"answers": list(answers), "explain": explain}
        own = {name: one.model_copy(update=changed) for name, one in self.settings.models.items()}
        self.settings = self.settings.model_copy(update={"models": own})
        folder.mkdir(exist_ok=True)
        self.database = with_tables(self.settings.database_url)
        self.store = ObjectStore(folder, "test")
        warm = WarmModels(self.settings.models, 8)
        self.models = {name: warm[name][1] for name in self.settings.models}
        self.rules = routing_rules.rules_of(self.settings, self.models)
        self.keeper = Keeper(self.settings, self.database, self.rules, self.models)
        self.worker = JobWorker(self.settings, self.database, self.rules, "test/worker-0")

    def receive(self, *paths: Path) -> None:
        for path in paths:
            with self.store.open_part() as part:
                part.write(path.read_bytes())
                self.store.keep(part, "test")

    def work(self) -> None:
        """Until nothing is left to do."""
        for _ in range(100):
            self.keeper.round()
            job = self.worker.jobs.claim(self.worker.name)
            if job is None:
                return
            self.worker.finish_job(job)

    def rows(self, table):
        with self.database.read() as connection:
            return connection.execute(select(table)).all()

    def result(self, name: str = "answer.dcm") -> Path:
        [job] = self.rows(tables.JOBS)
        return self.settings.folder / "results" / job.job / name
