"""What a run will take until its first step: said before it takes long, and kept beside what came."""

from __future__ import annotations

import os
from collections.abc import Callable

from hilum import errors
from hilum.planning import training_memory
from hilum.reading import ReadingOptions
from hilum.runs import training_jobs
from hilum.runs.run_end import FirstStep
from hilum.runs.training_jobs import TrainingJob
from hilum.runtime import hardware
from hilum.training.training_state import CommandClock
from hilum.values import Case
from hilum.work_state import log

GIB = 2**30
# Of the minutes, what a probe of the steps takes and what is measured before it, and the s that it takes at least.
PROBE_SHARE, PROBE_SECONDS = 0.05, 3.0
# What each further thread adds to the speed of one that prepares cases: all wait for one disk and one memory.
THREAD_GAIN = 0.5
# Of the minutes, what reading and preparing may take before it is said what helps.
MOST_BEFORE = 0.5
# From so many cases after the first on the time of the rest is foreseen; earlier where the first took so many s.
FEW_CASES, LONG_CASE = 3, 10.0
HELPS = (
    "Give more --minutes, fewer cases or a coarser grid (--set preprocessing.spacing=[...]); run `hilum check` "
    "first: what it looked at is kept"
)


def watched_reading(minutes: float, clock: CommandClock) -> Callable[[int, int], None]:
    """A function of the cases that are read, and of all, which says once that it will take long beside the minutes."""
    began = last = clock.seconds
    first, first_at, warned = 0, 0.0, list[str]()

    def watch(done: int, total: int) -> None:
        """Say so as soon as that is foreseen."""
        nonlocal began, last, first, first_at
        now = clock.seconds
        if not first or done <= first:  # the first of these, or of another set
            began, first, first_at = last, done, now
        cases, seconds, last = done - first, now - first_at, now
        if cases < FEW_CASES:
            # What is imported with the first cases is no reason to expect the same of all others.
            if first_at - began < LONG_CASE:
                return
            cases, seconds = first, first_at - began
        foreseen = now + seconds / cases * (total - done)
        if not warned and done < total and foreseen > MOST_BEFORE * 60 * minutes:
            warned.append(too_long(f"reading {errors.count_phrase(total, 'case')}", foreseen, minutes))
            log.warning("%s", warned[0])

    return watch


def too_long(what: str, seconds: float, minutes: float) -> str:
    """That something before the first step takes a large part of the minutes, and what helps."""
    return f"{what} will take about {seconds:.0f} s, more than half of {minutes:g} minutes. {HELPS}"


def foresee(job: TrainingJob, case: Case, clock: CommandClock, minutes: float | None) -> FirstStep:
    """s after the start to a training's first step, and GiB of all processes, by a case that is prepared for it.

    case:    like most of them
    clock:   of the command
    minutes: None where no clock decides
    """
    reading, threads = ReadingOptions.of_plan(job.plan.options), job.settings.training.threads
    cases = len(job.train) + len(job.val) + len(job.unlabelled)
    before, began = hardware.peak_memory(), clock.seconds
    [first] = training_jobs.prepare_cases([case], job.settings, reading, what="preparing the first case")
    each = clock.seconds - began
    probe = max(PROBE_SECONDS, PROBE_SHARE * 60 * (minutes or 0.0))
    preparing = each * (cases - 1) / (1 + THREAD_GAIN * (min(threads, max(1, cases - 1)) - 1))
    held, processes = cases * first.nbytes, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    held = held if held <= training_memory.cached_memory(hardware.available_host_memory()) / processes else 0
    working = (hardware.peak_memory() - before) * (min(threads, cases) - 1)
    memory = max(job.settings.training.memory or 0.0, (hardware.peak_memory() + held + working) / GIB) * processes
    before_probe = clock.seconds + preparing
    log.info(
        f"{errors.count_phrase(cases, 'case')}: about {each:.2g} s each to prepare, {memory:.1f} GiB of memory; "
        f"first step about {before_probe + probe:.0f} s after the start"
    )
    if minutes is not None and before_probe > MOST_BEFORE * 60 * minutes:
        log.warning("%s", too_long("reading and preparing", before_probe, minutes))
    return FirstStep(first_step_s=round(before_probe + probe, 1), memory_gib=round(memory, 2))
