"""Errors that a person can act on: the place, the problem and the remedy."""

import errno
import re
import struct
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from difflib import get_close_matches
from pickle import UnpicklingError
from typing import Self

# How torch, ONNX Runtime, C++ libraries and a system short of memory say it, each with an exception of its own.
NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not|failed to|unable to) allocate|bad[_ ]alloc|_ALLOC_FAILED|"
    r"can't start new thread",
    re.IGNORECASE,
)

# Classes in which Python, torch, OpenVINO and C++ libraries report it; ONNX Runtime's own become MemoryError.
MEMORY_ERRORS = (MemoryError, OSError, RuntimeError)
# Control characters but line breaks and tabs, marks of the direction of writing, and bytes of a name that are no text.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# How Python shows an object that has no name.
ADDRESS = re.compile(r"\s*<[\w. ]+ at 0x[0-9a-fA-F]+>")
# What torch's unpickler and its archive reader raise for a file of another kind or a damaged one.
TORCH_FILE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)


def printable_text(text: str) -> str:
    """Text for a terminal: what would move its cursor, change its colours or turn the reading direction is spelled out.

    Names in files and headers come from strangers; line breaks and tabs stay.
    """
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def describe_fault(error: BaseException) -> str:
    """Kind of an unforeseen error, and the place of ours where it came up; its words may state a patient's value."""
    frames = [(frame.f_globals.get("__name__", ""), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [one for one in frames if one[0].partition(".")[0] == __name__.partition(".")[0]] or frames
    return " in ".join([type(error).__name__, *(f"{module}, line {line}" for module, line in own[-1:])])


def describe_cause(error: BaseException) -> str:
    """What Python or a library said of a file, in words: no name of a class, no address in memory."""
    words = ADDRESS.sub("", str(error)).strip()
    match error:
        case KeyError():
            return f"it lacks {words}"
        case AttributeError() | TypeError() | IndexError():
            return "something in it is of another kind than the format has there"
        case _:
            return words or "no library says why"


class HilumError(Exception):
    """Base of all errors: what was wrong, where, and what to do about it."""

    def __init__(self, problem: str, where: str, remedy: str) -> None:
        super().__init__(problem, where, remedy)  # all three: it must cross processes
        self.problem, self.where, self.remedy = problem, where, remedy

    def stating(self, *, problem: str | None = None, where: str | None = None, remedy: str | None = None) -> Self:
        """The same error with other words, whatever its class is made from."""
        other = copy(self)
        other.problem, other.where = problem or self.problem, where or self.where
        other.remedy = remedy or self.remedy
        other.args = (other.problem, other.where, other.remedy)
        return other

    def __str__(self) -> str:
        return printable_text(f"{self.where}: {self.problem.rstrip('.')}. {self.remedy.rstrip('.')}.")


class UsageError(HilumError):
    """The call itself is wrong: an unknown option, a path that isn't there, an impossible plan."""


class PlanError(UsageError):
    """A plan that cannot be followed: an unknown name, an impossible value, another version."""


class FormatError(HilumError):
    """A file that cannot be read, or a value that a format cannot hold."""


class GeometryError(HilumError):
    """Error where the place of voxels cannot be known, or two things do not lie on the same grid."""


class DatasetError(HilumError):
    """A folder that cannot be understood as a data set, or a data set that cannot be used."""


class OutputError(HilumError):
    """The outputs of a network are NaN or infinite, so that there is no answer."""


class IntegrityError(HilumError):
    """A file of ours is not what was written: changed, cut short, or not to be trusted."""


class ResourceError(HilumError):
    """The machine does not have what is needed: memory, disk, a device, an optional package."""


class MemoryShortageError(ResourceError):
    """One piece of work takes more memory than there is; a smaller one may still be done."""


class WorkerLostError(ResourceError):
    """A process died over one piece of work, or was killed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: libraries have no common way to say so."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, HilumError):
        return isinstance(error, MemoryShortageError)
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


class OutOfMemorySuppressed:
    """A context that suppresses an error where memory ran out, for whoever can do with less."""

    def __enter__(self) -> None:
        """Nothing is set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return error is not None and is_out_of_memory(error)


@contextmanager
def foreign_errors(ours: Callable[[Exception], HilumError]) -> Iterator[None]:
    """Whatever code of others raises becomes an error of ours; our own, and memory that ran out, stay what they are."""
    try:
        yield
    except (HilumError, MemoryError):
        raise
    except Exception as error:  # libraries behind formats and downloads raise what they like
        raise ours(error) from error


def count_phrase(number: int, unit: str, many: str = "") -> str:
    """ "1 case", "3 cases"; many: the plural, where it is not the singular with an s."""
    return f"{number} {unit if number == 1 else many or f'{unit}s'}"


def cases_of_patients(cases: int, patients: int | None, unit: str = "case") -> str:
    """ "12 cases of 7 patients"; "12 cases" where each stands for a patient, or nobody knows for whom."""
    if patients is None or cases == patients:
        return count_phrase(cases, unit)
    return f"{count_phrase(cases, unit)} of {count_phrase(patients, 'patient')}"


def nearest_remedy(name: str, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """ "Use claim": the known name that is most like a wrong one; all of them where none is.

    elsewhere: {name that others have for it: the known one}
    """
    word = re.sub(r"[\s-]+", "_", name.lower())
    if elsewhere and word in elsewhere:
        return f"Use {elsewhere[word]}"
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1)
    return f"Use {near[0]}; there are {', '.join(names)}" if near else f"Use {', '.join(names)}"


def list_phrase(names: Iterable[object], most: int = 6) -> str:
    """ "a, b and 4 more"; most: names in full."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{', '.join(words[:most])}{more}"
