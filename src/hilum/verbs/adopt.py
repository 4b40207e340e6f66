"""`adopt`: a model of another program as a package of ours, with all that was taken on trust said in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.networks.layouts import text_layouts
from hilum.options.models import AdoptOptions
from hilum.reading import ReadingOptions, dataset_reading, verb_results
from hilum.runtime import Model, hardware, model_files, result_codes
from hilum.runtime.foreign import detect, nnunet_model, sam_file, zero_shot
from hilum.runtime.package import backends, certification, package_writing
from hilum.runtime.package.monai_metadata import NO_POINTING
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.transforms import COLOUR, channel_stack
from hilum.values import Case, Decision, Image
from hilum.verbs import package
from hilum.verbs.package import MARKS, PackagingRecord, PackagingResult

# Each is predicted several times by every backend.
MOST = 20
# The backends that `predict` may take by itself, in place of names.
USUAL = ("usual",)


@dataclass(frozen=True)
class AdoptionResult(PackagingResult):
    """A package of an adopted model, with the origin of the model and what was taken on trust.

    usual: whether only backends that `predict` may take by itself were tried
    """

    origin: str = ""
    trusted: tuple[str, ...] = ()
    usual: bool = False

    def as_record(self) -> PackagingRecord:
        """The record for `--json`."""
        return {**super().as_record(), "origin": self.origin, "trusted": list(self.trusted)}

    def __repr__(self) -> str:
        lines = super().__repr__().splitlines()[:-1]  # without the word on its estimates: nobody made any here
        trusted = f"its checkpoints were opened trusting {', '.join(self.trusted)}"
        lines.append(f"from {self.origin}; Hilum has measured nothing of it")
        if self.usual:
            lines.append(
                "certified: the backends that predict may use on this machine. For others: "
                "--backends all, or their names"
            )
        return "\n".join([*lines, trusted] if self.trusted else lines)


@keywords.takes(AdoptOptions)
def adopt(options: AdoptOptions) -> AdoptionResult:
    """The model of another program as a package: a folder, or a zip where `out` ends so.

    trust:          "module.name" of what its checkpoints may call beside tensors and numbers; it is imported and run
    Raises UsageError for what is no such model, IntegrityError for a checkpoint that would call what is not trusted.
    """
    source = options.source
    out = options.out
    backend_names = options.backends
    source, out = Path(source), Path(out)
    verb_results.refuse_missing(source)
    if options.images is not None:
        verb_results.refuse_missing(Path(options.images))
    _refuse_unknown(source, options)
    zipped = package.is_zip(out)
    verb_results.refuse_taken(out, options.overwrite, () if zipped else MARKS)
    backend_names = None if backend_names is None else tuple(backend_names)
    backends.refuse_unknown_backends(() if backend_names in (None, USUAL) else backend_names, "--backends")
    largest = (
        nnunet_model.read_postprocessing(Path(options.postprocessing)) if options.postprocessing is not None else ()
    )
    if options.classes is not None:
        adopted = _zero_shot(source, options)
    elif options.program is not None:
        adapter = None if options.adapter is None else Path(options.adapter)
        adopted = sam_file.load_sam(source, options.program, "cpu", adapter=adapter, side=options.size)
        # Only torch computes it: other backends have no place for prompts.
        backend_names = () if adopted.task.takes_prompts else backend_names
    else:
        adopted = detect.load_foreign(source, "cpu", fold=options.fold, trusted=options.trust, largest=largest)
    model = result_codes.with_codes(adopted, {})
    if problem := detect.why_unpackable(model):
        raise UsageError(problem, str(source), "Predict with it as it is: it needs no package")
    origin = str(model.record["origin"])
    limits = [f"Adopted from {origin}: Hilum has measured nothing of it. Ask its maker who owns the weights."]
    if options.trust:
        limits.append(f"Its checkpoints were opened trusting {', '.join(options.trust)}.")
    limits += [zero_shot.UNCALIBRATED] if options.classes is not None else []
    evidence = PackageEvidence(limits=limits, decisions=_decisions(options.trust, largest))
    with package.new_package_folder(out, options.overwrite, zipped) as folder:
        onnx = package_writing.write_package(model, evidence, folder.name, folder)
        certificate = None
        if backend_names != ():
            shown = _Shown(None if options.images is None else Path(options.images), model)
            here = hardware.choose_device("auto").value
            usual = backend_names == USUAL
            certificate = certification.certify(
                folder,
                model,
                shown,
                shown.description,
                names=None if usual else backend_names,
                devices=(here,) if usual else tuple(dict.fromkeys(("cpu", here))),
                threads=options.threads,
                only_fastest=usual,
            )
    return AdoptionResult(
        out,
        onnx,
        len(model.networks.members),
        False,
        certificate,
        package.code_table(model),
        str(model.gate),
        origin,
        tuple(options.trust),
        backend_names == USUAL,
        unbundled=NO_POINTING * model.task.takes_prompts,
    )


def _refuse_unknown(source: Path, options: AdoptOptions) -> None:
    """UsageError for what is no model that can be adopted, and for flags that belong to another."""
    if options.classes is None and options.text is not None:
        raise UsageError("--text is of openclip and medclip", str(source), "Give --classes FILE and --as too")
    if options.program is None and options.classes is not None:
        if options.text is not None or not (source / zero_shot.LAST_CHECKPOINT).is_dir():
            programs = " or ".join(text_layouts.TEXT_LAYOUTS)
            remedy = f"Give a run of pretrain --objective image_text, or weights with --as {programs} and --text FOLDER"
            raise UsageError("is no run whose network texts have taught", str(source), remedy)
        return
    if options.program is not None:
        known = sam_file.USAGES if options.classes is None else text_layouts.TEXT_LAYOUTS
        if options.program not in known:
            remedy = f"Choose one of {', '.join(known)}{'' if options.classes is None else ', or leave --classes out'}"
            raise UsageError(f"there is no program {options.program!r}", "--as", remedy)
        if options.classes is not None and options.text is None:
            remedy = "Give --text FOLDER with config.json and tokenizer"
            raise UsageError("its texts need the settings and the tokenizer of a BERT", str(source), remedy)
        if options.fold is not None or options.trust or options.postprocessing is not None:
            problem = "--fold, --trust and --postprocessing are of nnU-Net"
            raise UsageError(problem, str(source), "Leave them out with --as")
        return
    if options.adapter is not None or options.size is not None:
        raise UsageError("--adapter and --size are of SAMed", str(source), "Give --as samed too")
    if not detect.is_foreign(source):
        detect.refuse_near_misses(source)
        remedy = (
            "Give a result folder of nnU-Net v2, or a checkpoint with --as sam, medsam or samed; for a run use "
            "`hilum package`"
        )
        raise UsageError("is not a model of another program that can be adopted", str(source), remedy)


def _zero_shot(source: Path, options: AdoptOptions) -> Model:
    """The classification by the texts of a file."""
    classes = zero_shot.read_classes(Path(str(options.classes)))
    if options.program is not None:
        return zero_shot.load_zero_shot(source, options.program, Path(str(options.text)), classes)
    model = model_files.load(source / zero_shot.LAST_CHECKPOINT, "cpu")
    return zero_shot.zero_shot_of_run(source, model, classes)


class _Shown:
    """Images of a cohort, read one at a time; none without a cohort."""

    def __init__(self, images: Path | None, model: Model) -> None:
        self.cases: Sequence[Case] = ()
        self.description = ""
        if images is not None:
            colour = model.preprocessing.channels == COLOUR
            count = 1 if colour else len(model.preprocessing.channels)
            cases = list(dataset_reading.open_dataset(images, ReadingOptions(), references=False, channels=count))
            self.cases = cases[:MOST]
            self.description = f"{len(self.cases)} of {errors.count_phrase(len(cases), 'case')}"

    def __iter__(self) -> Iterator[Image]:
        return (channel_stack.stack_images(case.images, case.id) for case in self.cases)


def _decisions(trust: Sequence[str], largest: Sequence[Sequence[int]]) -> dict[str, Decision]:
    """The decisions that a person made about this model."""
    decisions = {}
    if trust:
        decisions["adopt.trust"] = Decision(list(trust), "named by hand when the model was adopted")
    if largest:
        steps = errors.count_phrase(len(largest), "step")
        because = f"nnU-Net's postprocessing.pkl has {steps}; in each the largest piece stays"
        decisions["adopt.largest"] = Decision([list(group) for group in largest], because)
    return decisions
