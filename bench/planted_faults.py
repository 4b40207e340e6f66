"""Faults planted by rule in real images, tables, data sets and systems, each with what is right by construction.

    OMP_NUM_THREADS=1 python bench/planted_faults.py --draws 1000 --resume --record
    python bench/planted_faults.py --show 17

Each number is one draw, always the same on the same data: a real input, and one or two faults (`bench/plants`), whose
right outcome follows from what was planted: the same values, a refusal, or words that name the fault. A refused input
is mended as the remedy says and read again. Each draw runs in the process of `bench/fuzz.py`, which is replaced where
it hangs or dies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz import DATA, ROOT, Worker
from plants import box_faults, series_faults, set_faults, system_faults, table_faults, volume_faults
from plants.other_readers import READERS, look_by
from plants.planted import Fault, Planted, Seen, matches
from plants.sources import Sources, masked_volumes
from recorded import record

# Kinds of fault that belong to another question: drawn as the others, and counted in a row of their own.
NEXT = "images and masks that do not belong together"
ALL = "all but these"
PLACE = ROOT / ".bench" / "planted_faults"
KINDS = ("right", "wrong without a word", "needless refusal", "traceback", "hang", "crash")
FAILURES = KINDS[1:]
FAMILIES = {
    "series": 32,
    "volumes": 16,
    "pictures": 9,
    "sizes of ImageJ": 3,
    "tables": 22,
    "data sets": 14,
    "boxes": 3,
    "shortcuts": 1,
    "systems": 6,
    NEXT: 0,
}
# A remedy's flag with the first of the values that it lists.
FLAG = re.compile(r"--([a-z][a-z-]+)(?:[ =]([\w.=:]+))?")
# The names that a refusal lists at its end.
NAMES = re.compile(r": ([\w-]+)(?:, [\w-]+)+$")
# A value that stands for what a person has to know.
PLACEHOLDER = re.compile("NAME|VALUE|COLUMN|REGEX|FOLDER")
# So often is an input mended: a remedy may lead to the next refusal.
ROUNDS = 3


@dataclass(frozen=True)
class Outcome:
    """What became of one draw.

    kind:   one of KINDS
    right:  the outcomes that were right
    seen:   what was said, or how values differ
    remedy: "remedied", "not remedied", "no rule" (nothing that a rule can do), or nothing where all went well
    """

    number: int
    kind: str
    family: str
    faults: str
    source: str
    right: str
    seen: str = ""
    remedy: str = ""
    because: str = ""


@cache
def sources_below(folders: tuple[Path, ...]) -> Sources:
    """The real inputs of some folders."""
    return Sources(folders)


def planted(number: int, folders: tuple[Path, ...], folder: Path) -> tuple[str, list[Fault], Planted]:
    """The draw of this number, written into a folder: its family, its faults, the input."""
    rng = random.Random(number)  # noqa: S311 - chance, no secret
    sources = sources_below(folders)
    family = rng.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    match family:
        case "series":
            return family, *series_faults.plant(sources.some_series(rng), folder, rng)
        case "volumes":
            return family, *volume_faults.plant_volume(*sources.some_volume(rng), folder, rng)
        case "pictures":
            return family, *volume_faults.plant_picture(*sources.some_picture(rng), folder, rng)
        case "sizes of ImageJ":
            return family, *volume_faults.plant_imagej(*sources.some_volume(rng), folder, rng)
        case "tables":
            return family, *table_faults.plant(*sources.some_pictures(rng, 8), folder, rng)
        case "data sets":
            volumes = masked_volumes(folders, rng, set_faults.CASES)
            faults, draw = set_faults.plant("hippocampus", volumes, folder, rng)
            return (NEXT if any(fault.next for fault in faults) else family), faults, draw
        case "boxes":
            place = next(one / "bccd" for one in folders if (one / "bccd" / "Annotations").is_dir())
            return family, *box_faults.plant(place, folder, rng)
        case "systems":
            if rng.random() < 0.06:
                return family, *system_faults.plant_full_disk(*sources.some_pictures(rng, 6), folder, rng)
            source = sources.some_volume(rng) if rng.random() < 0.5 else sources.some_picture(rng)
            return family, *system_faults.plant(*source, folder, rng)
        case _:
            return family, *set_faults.plant_shortcut(*sources.some_pictures(rng, 24), folder, rng)


def outcome_of(number: int, folders: tuple[Path, ...]) -> Outcome:
    """What becomes of the draw of this number."""
    with tempfile.TemporaryDirectory() as place:
        family, faults, draw = planted(number, folders, Path(place))
        about = {
            "number": number,
            "family": family,
            "faults": " and ".join(fault.name for fault in faults),
            "source": draw.source,
            "right": " or ".join(draw.wanted.right),
        }
        try:
            seen = draw.look(draw.path, {})
            kind, words = judged(draw, seen)
            remedy = mended(draw, seen) if seen.values is None else ""
        except Exception as error:  # that is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            because = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
            return Outcome(kind="traceback", because=because, **about)
        said = seen.words.replace(place, "")
        return Outcome(kind=kind, seen=words or said, remedy=remedy, because=seen.remedy.replace(place, ""), **about)


def judged(draw: Planted, seen: Seen) -> tuple[str, str]:
    """(kind, how values differ)."""
    wanted = draw.wanted
    if seen.fault:
        return "traceback", seen.fault
    if seen.values is None:
        return ("right" if "refused" in wanted.right else "needless refusal"), ""
    differ = draw.differ(seen.values, wanted)
    if "same" in wanted.right and not differ:
        return "right", ""
    if "named" in wanted.right and matches(wanted.words, seen.words):
        return "right", ""
    return "wrong without a word", differ or f"no word that matches {wanted.words!r} in: {seen.words}"


def mended(draw: Planted, refusal: Seen) -> str:
    """Whether the input is read when the remedy is followed: its flag, else what can be done to the files."""
    options: dict[str, Any] = {}
    for _ in range(ROUNDS):
        if not follow(draw, refusal, options):
            return "not remedied" if options else "no rule"
        seen = draw.look(draw.path, options)
        if seen.values is not None:
            return "remedied"
        if seen == refusal:
            return "not remedied"
        refusal = seen
    return "not remedied"


def follow(draw: Planted, refusal: Seen, options: dict[str, Any]) -> bool:
    """Do what a remedy asks for: True where a rule can."""
    for name, value in FLAG.findall(refusal.remedy):
        key = name.replace("-", "_")
        listed = NAMES.search(refusal.words)
        chosen = listed[1] if value == "NAME" and listed is not None else value
        if key not in options and not PLACEHOLDER.search(chosen):
            options[key] = chosen or True
            return True
    for words, act in draw.wanted.mends:
        if matches(words, refusal.remedy):
            act(draw.path)
            return True
    return False


def other_readers(number: int, folders: tuple[Path, ...]) -> dict[str, str]:
    """{program: what becomes of the draw of this number} of volumes and series, which other programs read too."""
    kinds = {}
    for name in READERS:
        with tempfile.TemporaryDirectory() as place:
            family, _, draw = planted(number, folders, Path(place))
            seen = look_by(name, draw.path) if family in ("series", "volumes") else None
            if seen is None:
                continue
            kind, _ = judged(draw, seen)
            kinds[name] = "with a warning" if kind == "wrong without a word" and seen.words else kind
    return kinds


def work(folders: tuple[Path, ...]) -> None:
    """Judge the draws whose numbers stand on standard input, one a line; a line of JSON says what became of each."""
    answers = os.fdopen(os.dup(1), "w")  # libraries may print
    os.dup2(2, 1)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(outcome_of(int(line), folders))), file=answers, flush=True)


def outcomes(numbers: Sequence[int], folders: tuple[Path, ...]) -> Iterator[Outcome]:
    """What becomes of the draws of these numbers, in a process that is replaced where it hangs or dies."""
    script = [str(Path(__file__).resolve()), "--data", *map(str, folders)]
    with Worker(script) as worker:
        for number in numbers:
            answer = worker.ask(str(number))
            if "number" in answer:
                yield Outcome(**answer)
            else:
                yield Outcome(number, str(answer["kind"]), "", "", "", "", because=str(answer["because"]))


def table(known: Sequence[Outcome]) -> str:
    """Outcomes of each family, in Markdown."""
    lines = [
        f"| family | draws | {' | '.join(KINDS)} | remedied | not | no rule |",
        f"|---|{'---:|' * (len(KINDS) + 4)}",
    ]
    for family in [*FAMILIES, ALL]:
        rows = [one for one in known if family == one.family or (family == ALL and one.family != NEXT)]
        counts = Counter(one.kind for one in rows)
        remedies = Counter(one.remedy for one in rows)
        figures = [len(rows), *(counts[kind] for kind in KINDS)]
        figures += [remedies[one] for one in ("remedied", "not remedied", "no rule")]
        lines.append(f"| {family} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def summary(known: Sequence[Outcome]) -> Mapping[str, Any]:
    """The figures that were asked for, without the kinds of another question."""
    known = [one for one in known if one.family != NEXT]
    same = [one for one in known if one.right == "same"]
    tried = [one for one in known if one.remedy in ("remedied", "not remedied")]
    wrong = sum(one.kind == "wrong without a word" for one in known)
    return {
        "draws": len(known),
        "wrong": wrong,
        "wrong_upper_95": 3 / len(known) if known and not wrong else None,
        "same": len(same),
        "needless_refusals": sum(one.kind == "needless refusal" for one in same),
        "tracebacks": sum(one.kind in ("traceback", "hang", "crash") for one in known),
        "refused_and_mended": len(tried),
        "not_remedied": sum(one.remedy == "not remedied" for one in tried),
        "no_rule": sum(one.remedy == "no rule" for one in known),
    }


def kinds_of_fault(known: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """{faults: {outcome: how many}}"""
    kinds: dict[str, Counter[str]] = {}
    for one in known:
        kinds.setdefault(f"{one.family}: {one.faults.partition(' and ')[0]}", Counter())[one.kind] += 1
    return {name: dict(kinds[name]) for name in sorted(kinds)}


def readers_table(read: Sequence[Mapping[str, str]], known: Sequence[Outcome]) -> str:
    """What other programs made of series and volumes, beside ours, in Markdown."""
    columns = ("right", "with a warning", "wrong without a word", "needless refusal")
    lines = [f"| program | draws | {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) + 1)}"]
    programs = {name: [kinds[name] for kinds in read if name in kinds] for name in READERS}
    ours = [one.kind for one in known[: len(read)] if one.family in ("series", "volumes")]
    for name, kinds in {"Hilum": ours, **programs}.items():
        counts = Counter(kinds)
        lines.append(f"| {name} | {len(kinds)} | {' | '.join(str(counts[one]) for one in columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--data", type=Path, nargs="+", default=[ROOT / "data", DATA], help="folders of real data")
    parser.add_argument("--resume", action="store_true", help="go on where a run with these numbers ended")
    parser.add_argument("--readers", type=int, default=0, help="so many of the draws through other programs too")
    parser.add_argument("--show", type=int, nargs="+", metavar="NUMBER", help="say what becomes of these draws alone")
    parser.add_argument("--record", action="store_true", help="write the tables to the findings")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folders = tuple(folder for folder in given.data if folder.is_dir())
    if given.worker:
        work(folders)
        return
    if given.show:
        for number in given.show:
            print(json.dumps(asdict(outcome_of(number, folders)), indent=1))
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    kept = PLACE / f"outcomes_{given.first}.jsonl"
    if not given.resume:
        kept.unlink(missing_ok=True)
    known = [Outcome(**json.loads(line)) for line in kept.read_text().splitlines()] if kept.exists() else []
    with kept.open("a") as file:
        for outcome in outcomes(range(given.first + len(known), given.first + given.draws), folders):
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            known.append(outcome)
    print(table(known))
    print(json.dumps(summary(known), indent=1))
    for one in known:
        if one.kind in FAILURES or one.remedy == "not remedied":
            print(f"{one.number} {one.family}, {one.faults} ({one.source}): {one.kind} {one.remedy}")
            print(f"    {one.seen[:400]} | {one.because[:400]}")
    read = [other_readers(number, folders) for number in range(given.first, given.first + given.readers)]
    beside = readers_table(read, known)
    print(beside)
    if given.record:
        text = f"{table(known)}\n\n{beside}" if read else table(known)
        record("planted_faults", "Faults planted by rule", text, {**summary(known), "kinds": kinds_of_fault(known)})


if __name__ == "__main__":
    main()
