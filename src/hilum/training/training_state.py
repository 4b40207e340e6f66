"""The numbers of a training: its clock, its state between steps, where its time goes and what it comes to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from hilum.errors import IntegrityError
from hilum.training.length.schedule import Speed, TrainingPace
from hilum.training.step.computation import EAGER
from hilum.training.step.train_step import Learnt

# Of its part of the minutes, what a network takes that shares them: the others start up too.
OWN_SHARE = 0.97
# Of `log.csv`; losses of single objectives follow, where there are several, and without references the rank.
COLUMNS = ("step", "seconds", "loss", "learning_rate", "validation", "training_metric", "gradient_norm")


@dataclass(frozen=True)
class Scores:
    """The selecting metric of the validation cases, and of some training cases; None where it was not measured.

    rank: effective rank of the pooled features of the cases that were looked at, where no reference says what is right
    """

    validation: float | None = None
    training: float | None = None
    rank: float | None = None


@dataclass(frozen=True)
class Moment:
    """The position of a training: step of steps, seconds since the command began.

    validation, training_metric: the selecting metric of validation cases, and of some training cases
    waiting: share of the time of this session in which the network waited for data
    gradient_norm: before it was clipped
    losses: of each objective, where there are several
    rank: effective rank of the features of the cases that were looked at, of a training without references
    reached: share of the machine's peak that steps reach; None where it was not measured
    """

    step: int
    steps: int
    seconds: float
    loss: float
    learning_rate: float
    validation: float | None = None
    waiting: float = 0.0
    reached: float | None = None
    training_metric: float | None = None
    gradient_norm: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    rank: float | None = None

    @classmethod
    def from_step(cls, state: State, seconds: float, learnt: Learnt, scores: Scores) -> Moment:
        """After a step of this loss, taken at this rate."""
        return cls(
            state.step,
            state.pace.steps,
            seconds,
            learnt.loss,
            learnt.rate,
            scores.validation,
            state.waiting,
            None if state.work is None else state.work.reached_share,
            scores.training,
            learnt.gradient,
            learnt.losses,
            scores.rank,
        )


@dataclass(frozen=True)
class CommandClock:
    """The time of a command, earlier sessions of it included.

    began:    `now()` when the command started
    spent:    s of earlier, killed sessions
    deadline: s by which all training must end; None where no clock decides
    turn:     s at which the turn of the training at hand began; None where it has none
    now:      s of a clock that never goes back
    """

    began: float
    spent: float = 0.0
    deadline: float | None = None
    turn: float | None = None
    now: Callable[[], float] = time.monotonic

    @property
    def seconds(self) -> float:
        """s since the command started, in all its sessions."""
        return self.now() - self.began + self.spent

    @property
    def time_left(self) -> float:
        """s for training; without end where no deadline is set."""
        return math.inf if self.deadline is None else self.deadline - self.seconds


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of a training: the checkpoint to use, and why that one.

    stopped: why it ended before its last planned step, or nothing
    waiting: share of the time in which the network waited for data
    work:    how fast the steps were, beside what the machine can do
    compute: the way in which steps were computed
    batch:   samples of a step where they were fewer than planned, else None
    windows: of each validation case that a look saw at most; None for all
    """

    checkpoint: Path
    because: str
    steps: int
    stopped: str = ""
    waiting: float = 0.0
    work: Work | None = None
    compute: str = EAGER
    batch: int | None = None
    windows: int | None = None


@dataclass(frozen=True)
class Work:
    """The operations of steps, and those that the machine can do.

    operations: of a whole step, floating-point; peak: the most that the machine reaches, a second
    what:       the computation that reaches it
    step:       s of a step, on average; 0 before the first
    """

    operations: float
    peak: float
    what: str
    step: float = 0.0

    @property
    def reached_share(self) -> float | None:
        """Share of the peak that whole steps reach, augmentation, optimiser and waiting included."""
        return self.operations / (self.step * self.peak) if self.step > 0 else None

    def __str__(self) -> str:
        share = "" if self.reached_share is None else f"{100 * self.reached_share:.0f} % of "
        return f"{share}{self.peak / 1e9:.0f} GFLOP/s, which {self.what} reaches"


@dataclass
class Spans:
    """s of this session, waited for data and worked at so many steps; what lies between steps is neither.

    looked: at the validation cases, the last time
    since:  when the stretch of steps began of which `step` is the mean
    """

    now: Callable[[], float]
    waited: float = 0.0
    worked: float = 0.0
    steps: int = 0
    looked: float = 0.0
    since: float = 0.0
    steps_before: int = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which the network waits for data."""
        mark = self.now()
        yield
        self.waited += self.now() - mark

    @contextmanager
    def working(self) -> Iterator[None]:
        """Time of one step."""
        mark = self.now()
        yield
        self.worked += self.now() - mark
        self.steps += 1

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Time of a look at the validation cases, which counts for no step."""
        mark = self.now()
        yield
        self.looked = self.now() - mark
        self.since += self.looked

    def restart(self) -> None:
        """A new stretch of steps starts here."""
        self.since = self.now()
        self.steps_before = self.steps

    @property
    def step(self) -> float:
        """s of a step since the last restart, with all that lies between steps but looks."""
        return (self.now() - self.since) / max(1, self.steps - self.steps_before)

    @property
    def share_waiting(self) -> float:
        """The share of the time of all steps that was spent waiting."""
        return self.waited / max(1e-9, self.waited + self.worked)

    def timed_work(self, work: Work | None) -> Work | None:
        """The work with the time of this session's steps."""
        return None if work is None or not self.steps else replace(work, step=(self.waited + self.worked) / self.steps)


@dataclass(frozen=True)
class Share:
    """The part that a network has in minutes that several share.

    networks: as many as share them evenly
    began:    s after the command's start at which the first of them began its steps
    kept:     s that all of them leave to predictions by several
    """

    networks: int
    began: float
    kept: float

    def seconds_of(self, left: float) -> float:
        """s for one, of so many that were left to all when the first began."""
        return OWN_SHARE * (left - self.kept) / self.networks


@dataclass(frozen=True)
class State:
    """Numbers from which, with the tensors, a training goes on as if it had not been stopped.

    step:        how many are done
    validations: how many the whole training has
    best:        the best metric of a validation so far
    without:     validations since then
    speed:       None where the plan fixes the steps, so that no clock can change them
    stopped:     why the training ended early, or nothing
    began_from:  which weights it began from, in words, or nothing
    waiting:     share of the last session's time in which the network waited for data
    compute:     the way in which steps are computed, as a plan names it
    work:        how fast the last session's steps were; None where the peak was not measured
    preferred:   why the last weights were taken where earlier ones had a higher metric, or nothing
    batch:       samples of a step where they are fewer than was planned, else None
    share:       of the minutes, where networks after this one have the rest
    windows:     of each case that a look at validation cases sees at most; None for all
    """

    step: int
    pace: TrainingPace
    validations: int
    best: Annotated[float, BeforeValidator(lambda stated: -math.inf if stated is None else stated)] = -math.inf
    without: int = 0
    speed: Speed | None = None
    stopped: str = ""
    began_from: str = ""
    waiting: float = 0.0
    compute: str = EAGER
    work: Work | None = None
    preferred: str = ""
    batch: int | None = None
    share: Share | None = None
    windows: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether no step follows."""
        return bool(self.stopped) or self.step >= self.pace.steps

    def record(self, clock: CommandClock) -> dict[str, Any]:
        """The record for `state.json`, with the time that was spent and the time there is."""
        return {**asdict(self), "seconds": clock.seconds, "deadline": clock.deadline, "turn": clock.turn}

    @property
    def is_validated(self) -> bool:
        """Whether a look at the validation cases follows this step."""
        return self.is_due(self.validations)

    def is_due(self, often: int) -> bool:
        """Whether what happens so often, evenly over the progress, happens after this step."""
        return self.pace.is_due(self.step, often)

    def after(self, *, looked: float) -> State:
        """The state with the time of a validation, where a clock counts it."""
        return self if self.speed is None else replace(self, speed=self.speed.after(validation=looked))

    @classmethod
    def from_record(cls, record: object, where: str) -> State:
        """The inverse of `record`. Raises IntegrityError for what is no state."""
        try:
            return TypeAdapter(cls).validate_python(record)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise IntegrityError(f"is not a training state ({place}: {fault['msg']})", where, "Train again") from error
