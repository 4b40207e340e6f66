"""`deidentify`: files without the identity of their patients, in a folder that may be handed on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hilum import errors, keywords
from hilum.deidentification import handed_folder, keyed_names
from hilum.deidentification.confidentiality_profile import ConfidentialityProfile
from hilum.deidentification.handed_folder import (
    REPORT,
    DeidentificationRecord,
    FolderHanding,
    HandedFile,
    HandingPlan,
)
from hilum.lazy import pandas as pd
from hilum.options.images import DeidentifyOptions
from hilum.report import InNotebook
from hilum.values import Problem

WAITS = "Look at review.html, then give --accept-review"


@dataclass(frozen=True, eq=False)
class DeidentificationResult(InNotebook):
    """What became of each file, and where all of it lies."""

    out: Path
    private: Path
    rows: tuple[HandedFile, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row a file: source, output, actions, text, review, refused."""
        return pd.DataFrame([row.as_row() for row in self.rows])

    @property
    def failures(self) -> tuple[Problem, ...]:
        """Files that were refused, and those that wait for a person."""
        refused = [Problem.error(one.refused, (one.source,), remedy=one.remedy) for one in self.rows if one.refused]
        waiting = [Problem.error(one.review, (one.source,), remedy=WAITS) for one in self._waiting if one.review]
        return (*refused, *waiting)

    @property
    def _waiting(self) -> list[HandedFile]:
        return [one for one in self.rows if one.output is None and one.review]

    def as_record(self) -> DeidentificationRecord:
        """The record for `--json`."""
        return {"schema": handed_folder.SCHEMA, "version": 1, "rows": [row.as_row() for row in self.rows]}

    def __repr__(self) -> str:
        written = [one for one in self.rows if one.output is not None]
        actions = Counter[str]()
        for one in written:
            actions.update(one.actions)
        texts = sum(one.text for one in written)
        lines = [f"{self.out}: {errors.count_phrase(len(written), 'file')} that may be handed on"]
        lines += [f"elements: {', '.join(f'{count} {kind}' for kind, count in actions.items())}"] if actions else []
        lines += [f"burned-in text: {errors.count_phrase(texts, 'place')} blacked"] if texts else []
        lines += [f"refused: {count} ({reason})" for reason, count in self._reasons().most_common()]
        lines += [f"to be looked at: {len(self._waiting)}, on review.html"] if self._waiting else []
        lines += [f"{self.private}: {REPORT} and what else may not be handed on"]
        return "\n".join(lines)

    def _reasons(self) -> Counter[str]:
        return Counter(one.refused for one in self.rows if one.refused)


@keywords.takes(DeidentifyOptions)
def deidentify(options: DeidentifyOptions) -> DeidentificationResult:
    """Write files without the identity of their patients into `out`; what tells the way back lies beside it.

    The environment has the key from which new names are made, HILUM_DEIDENTIFY_KEY. PS3.15 annex E
    Raises UsageError without it, for options that are unknown or contradict each other, for folders within each other
    and for a folder of another key; ResourceError for a full disk. A file that is refused is a row of the result.
    """
    names = options.options.split(",") if isinstance(options.options, str) else options.options
    profile = ConfidentialityProfile(frozenset(name.strip() for name in names if name.strip()))
    given = [options.inputs] if isinstance(options.inputs, str | Path) else options.inputs
    plan = HandingPlan(
        tuple(Path(one) for one in given),
        Path(options.out),
        profile,
        keyed_names.read_names(),
        with_table=options.table,
        accept_review=options.accept_review,
    )
    plan.refuse_misuse()
    return DeidentificationResult(plan.out, plan.private, tuple(FolderHanding(plan).run()))
