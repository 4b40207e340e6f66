"""The section of an ensemble's report about its members: their weights with the reason, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isocenter.errors import counted
from isocenter.report import Block, Paragraph, Section, Table
from isocenter.training import MemberWeights
from isocenter.values import Split
from isocenter.verbs.ensembling.members import Member
from isocenter.verbs.evaluation.comparison import Comparison, comparison_caveats, comparison_lead, primary_blocks

TUNED_ASIDE = (
    "Thresholds and post-processing were found on the same validation cases, each predicted by weights that were "
    "fitted without its patient: no case has a say in both the weights and the thresholds of one prediction. Whether "
    "weights are fitted at all, all cases decided."
)
TUNED_EQUAL = "Thresholds and post-processing were found on the validation cases, which had no say in the weights."
TUNED_BY_NONE = "No validation case is left by which thresholds and post-processing could be found."
OF_FOLDS = "The folds of a run count alike: they have no validation case in common."
OF_NETWORKS = "Several networks of one training count alike."


def members_section(
    members: Sequence[Member], weighed: MemberWeights, comparison: Comparison | None, parts: Mapping[str, Split]
) -> Section:
    """Weights with their reason, then every member compared with the ensemble on the same test cases."""
    counts = [counted(sum(part == one for part in parts.values()), f"{name} case") for one, name in PARTS.items()]
    tuned = TUNED_ASIDE if weighed.is_fitted else TUNED_EQUAL if "val" in parts.values() else TUNED_BY_NONE
    sentences = [f"Weights: {weighed.because}.", tuned]
    several = [one for one in members if len(one.models) > 1]
    sentences += [OF_FOLDS] * any(one.is_of_folds for one in several)
    sentences += [OF_NETWORKS] * (not all(one.is_of_folds for one in several))
    blocks: list[Block] = [
        _weights(members, weighed),
        Paragraph(" ".join(sentences)),
        Paragraph(f"{', '.join(counts)}."),
    ]
    if comparison is not None:
        blocks += [Paragraph(comparison_lead(comparison)), *primary_blocks(comparison)]
        blocks.append(Paragraph(" ".join(comparison_caveats(comparison))))
    return Section("Members", blocks)


PARTS: Mapping[Split, str] = {"train": "training", "val": "validation", "calibration": "calibration", "test": "test"}


def _weights(members: Sequence[Member], weighed: MemberWeights) -> Table:
    columns = ["Member", "Weight", "Network", "Seed", "Networks"]
    return Table(
        columns,
        [
            [
                one.name,
                f"{share:.2f}" if share else "0: left out of the model",
                str(one.plan["network.name"]),
                str(one.plan["training.seed"]),
                str(len(one.models)),
            ]
            for one, share in zip(members, weighed.shares, strict=True)
        ],
    )
