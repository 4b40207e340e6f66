"""The process that computes for programs: begun at the first question, ended where it takes too long."""

from __future__ import annotations

import multiprocessing
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from anyio import CapacityLimiter

from hilum.service.configuration import NodeSettings
from hilum.service.work import inference_worker
from hilum.service.work.answer_tensors import InferenceQuestion, InferenceReply
from hilum.work_state import log

FOLDER = "inference"


class ModelProcess:
    """A process with the node's models, which answers one question at a time.

    room: where images lie while they are answered; what a node that died has left there is removed
    turn: holds back further questions, without a thread for each
    """

    def __init__(self, settings: NodeSettings) -> None:
        self.settings, self.turn = settings, CapacityLimiter(1)
        self.room = settings.folder / FOLDER / platform.node()  # other machines may serve the same folder
        shutil.rmtree(self.room, ignore_errors=True)
        self._running: tuple[SpawnProcess, Connection] | None = None
        self._lock, self._closed = threading.Lock(), False

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one question, which goes where the answer fails; else whoever sends the answer removes it."""
        self.room.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.room))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def ask(self, question: InferenceQuestion) -> InferenceReply:
        """The reply to a question. Where the process dies or takes too long, the next question gets another one."""
        process, connection = self._process()
        limit = self.settings.queue.job_timeout_s
        try:
            connection.send(question)
            if connection.poll(limit):
                reply: InferenceReply = connection.recv()
                return reply
            problem, remedy = f"took longer than {limit:g} s", "Send a smaller image, or raise queue.job_timeout_s"
        except (EOFError, OSError):
            problem, remedy = "the process that computes it has ended", "Send a smaller image, or look at the memory"
        self._end(process, connection)
        log.warning("a question to model %s: %s", question.model, problem)
        return InferenceReply(503, problem=problem, remedy=remedy)

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._closed, running = True, self._running
        if running is not None:
            self._end(*running)

    def _process(self) -> tuple[SpawnProcess, Connection]:
        with self._lock:
            if self._running is None and not self._closed:
                self._running = self._begun()
            if self._running is None:
                raise EOFError("the node stops")
            return self._running

    def _begun(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = multiprocessing.Pipe()
        arguments = (self.settings, theirs)
        # A fork would share the locks of this process's threads.
        process = multiprocessing.get_context("spawn").Process(target=_answering, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _end(self, process: SpawnProcess, connection: Connection) -> None:
        process.kill()
        process.join()
        connection.close()
        with self._lock:
            if self._running is not None and self._running[0] is process:
                self._running = None


def _answering(settings: NodeSettings, connection: Connection) -> None:
    """The work of the process; what it needs is imported there alone."""
    inference_worker.serve_questions(settings, connection)
