"""The images that a package's certificate is made with: of the run's validation cases, where its data still are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from isocenter.errors import IsocenterError, counted
from isocenter.files import content_hash, read_text_table
from isocenter.planning import FURTHER
from isocenter.reading import ReadingOptions, open_for, pairs_of
from isocenter.scoring import named_as_in_run, read_data_record
from isocenter.transforms import stacked
from isocenter.values import Case, Image, Plan

# As many as selection has at most; each is predicted several times by every backend.
MOST = 20
NAMED = {"val": "validation", "train": "training"}


@dataclass(frozen=True)
class ValidationImages:
    """Cases to be read one at a time, and in words which ones they are, without their names.

    cases: none where they cannot be had; `description` has the reason
    """

    description: str
    cases: Sequence[Case] = ()

    def __iter__(self) -> Iterator[Image]:
        return (stacked(case.images, case.id) for case in self.cases)


def validation_images(run: Path, plan: Plan) -> ValidationImages:
    """Cases that selected the model, or trained it where none did, and whose files are unchanged."""
    try:
        places = [run / plan.data, *plan.options.get(FURTHER, ())]
        dataset = open_for(plan["task.name"], places, ReadingOptions.of_plan(plan.options), pairs=pairs_of(plan))
    except (IsocenterError, OSError):
        return ValidationImages("the run's data could not be read again")
    table, record = read_text_table(run / "split.csv"), read_data_record(run)
    dataset = named_as_in_run(dataset, record)
    part = next((one for one in NAMED if one in set(table["split"])), "val")
    ids = set(table.loc[table["split"] == part, "case"])
    cases = [case for case in dataset if case.id in ids]
    contents = dict(record.contents) if record is not None else {}
    same = [case for case in cases if contents.get(case.id) == content_hash(case)]
    if not same:
        return ValidationImages(f"the run's {NAMED[part]} cases are not what they were")
    chosen = same[:MOST]
    return ValidationImages(f"{len(chosen)} of {counted(len(ids), f'{NAMED[part]} case')}", chosen)
