"""`adopt`: a model of another program as a package of ours, with all that was taken on trust said in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isocenter.errors import UsageError, counted
from isocenter.keywords import takes
from isocenter.options import AdoptOptions
from isocenter.reading import ReadingOptions, open_dataset, refuse_missing, refuse_taken
from isocenter.runtime import (
    Evidence,
    Model,
    certify,
    choose_device,
    is_foreign,
    load_foreign,
    read_postprocessing,
    refuse_almost,
    refuse_unknown,
    why_unpackable,
    with_codes,
    write_package,
)
from isocenter.transforms import COLOUR, stacked
from isocenter.values import Case, Decision, Image
from isocenter.verbs.package import MARKS, Packaged, becoming, code_table, is_zip

# Each is predicted several times by every backend.
MOST = 20
# The backends that `predict` may take by itself, in place of names.
USUAL = ("usual",)


@dataclass(frozen=True)
class Adopted(Packaged):
    """A package of an adopted model, with the origin of the model and what was taken on trust.

    usual: whether only backends that `predict` may take by itself were tried
    """

    origin: str = ""
    trusted: tuple[str, ...] = ()
    usual: bool = False

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {**super().as_record(), "origin": self.origin, "trusted": list(self.trusted)}

    def __repr__(self) -> str:
        lines = super().__repr__().splitlines()[:-1]  # without the word on its estimates: nobody made any here
        trusted = f"its checkpoints were opened trusting {', '.join(self.trusted)}"
        lines.append(f"from {self.origin}; Isocenter has measured nothing of it")
        if self.usual:
            lines.append(
                "certified: the backends that predict may use on this machine. For others: "
                "--backends all, or their names"
            )
        return "\n".join([*lines, trusted] if self.trusted else lines)


@takes(AdoptOptions)
def adopt(options: AdoptOptions) -> Adopted:
    """The model of another program as a package: a folder, or a zip where `out` ends so.

    trust:          "module.name" of what its checkpoints may call beside tensors and numbers; it is imported and run
    Raises UsageError for what is no such model, IntegrityError for a checkpoint that would call what is not trusted.
    """
    source = options.source
    out = options.out
    backends = options.backends
    source, out = Path(source), Path(out)
    refuse_missing(source)
    if options.images is not None:
        refuse_missing(Path(options.images))
    if not is_foreign(source):
        refuse_almost(source)
        remedy = "Give a result folder of nnU-Net v2; for a run use `isocenter package`"
        raise UsageError("is not a model of another program that can be adopted", str(source), remedy)
    zipped = is_zip(out)
    refuse_taken(out, options.overwrite, () if zipped else MARKS)
    backends = None if backends is None else tuple(backends)
    refuse_unknown(() if backends in (None, USUAL) else backends, "--backends")
    largest = read_postprocessing(Path(options.postprocessing)) if options.postprocessing is not None else ()
    model = with_codes(load_foreign(source, "cpu", fold=options.fold, trusted=options.trust, largest=largest), {})
    if problem := why_unpackable(model):
        raise UsageError(problem, str(source), "Predict with it as it is: it needs no package")
    origin = str(model.record["origin"])
    limits = [f"Adopted from {origin}: Isocenter has measured nothing of it. Ask its maker who owns the weights."]
    if options.trust:
        limits.append(f"Its checkpoints were opened trusting {', '.join(options.trust)}.")
    evidence = Evidence(limits=limits, decisions=_decisions(options.trust, largest))
    with becoming(out, options.overwrite, zipped) as folder:
        onnx = write_package(model, evidence, folder.name, folder)
        certificate = None
        if backends != ():
            shown = _Shown(None if options.images is None else Path(options.images), model)
            here = choose_device("auto").value
            usual = backends == USUAL
            certificate = certify(
                folder,
                model,
                shown,
                shown.description,
                names=None if usual else backends,
                devices=(here,) if usual else tuple(dict.fromkeys(("cpu", here))),
                threads=options.threads,
                only_fastest=usual,
            )
    return Adopted(
        out,
        onnx,
        len(model.networks.members),
        False,
        certificate,
        code_table(model),
        str(model.gate),
        origin,
        tuple(options.trust),
        backends == USUAL,
    )


class _Shown:
    """Images of a cohort, read one at a time; none without a cohort."""

    def __init__(self, images: Path | None, model: Model) -> None:
        self.cases: Sequence[Case] = ()
        self.description = ""
        if images is not None:
            colour = model.preprocessing.channels == COLOUR
            count = 1 if colour else len(model.preprocessing.channels)
            cases = list(open_dataset(images, ReadingOptions(), references=False, channels=count))
            self.cases = cases[:MOST]
            self.description = f"{len(self.cases)} of {counted(len(cases), 'case')}"

    def __iter__(self) -> Iterator[Image]:
        return (stacked(case.images, case.id) for case in self.cases)


def _decisions(trust: Sequence[str], largest: Sequence[Sequence[int]]) -> dict[str, Decision]:
    """The decisions that a person made about this model."""
    decisions = {}
    if trust:
        decisions["adopt.trust"] = Decision(list(trust), "named by hand when the model was adopted")
    if largest:
        because = f"nnU-Net's postprocessing.pkl has {counted(len(largest), 'step')}; in each the largest piece stays"
        decisions["adopt.largest"] = Decision([list(group) for group in largest], because)
    return decisions
