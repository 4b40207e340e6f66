"""A plan for people: its reasons as prose, a paragraph a section, and its decisions as a table for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from textwrap import shorten, wrap
from typing import Any

from isocenter.objectives import objective_names
from isocenter.planning.defaults import is_default
from isocenter.tasks import kind, setting_sentences
from isocenter.values import BY_HAND, MM, Decision, Plan, Sentence, with_pixels

TITLES = {
    "task": "The task",
    "split": "Which cases train and which test",
    "preprocessing": "What the network sees",
    "network": "The network",
    "training": "How it learns",
    "objectives": "The objectives",
    "supervised": "The task's own loss",
    "augmentation": "How images are varied",
    "inference": "How it predicts",
    "evaluation": "How it is evaluated",
    "search": "What is searched before the training",
    "guard": "What it refuses",
    "transfer": "How it starts from other weights",
}

# Decisions whose value is a metric.
METRICS = ("training.selection", "evaluation.primary")
# The sentences of all sections; those of a kind of problem's settings come from their fields.
SENTENCES: Mapping[str, Sentence] = {
    "task.name": Sentence("The problem is {value}"),
    "split.method": Sentence("The split is {value}"),
    "split.folds": Sentence("There are {value} folds", "There are no folds"),
    "split.inner_folds": Sentence("There are {value} inner folds", "There are no inner folds", always=True),
    "split.inner_share": Sentence("Inner folds get {percent} of the minutes", only_with=("split.inner_folds",)),
    "split.calibration": Sentence(
        "{value} cases only calibrate, so that guarantees come from them",
        "No cases are kept only for calibration",
        always=True,
    ),
    "split.seed": Sentence(
        "The parts are drawn by seed {value}", "The parts have no seed of their own", zero_counts=True
    ),
    "preprocessing.ndim": Sentence("The network works in {value} dimensions"),
    "preprocessing.channels": Sentence("Its channels are {value} (numbered where the files do not name them)"),
    "preprocessing.absent": Sentence("A case may lack {value}", "No case may lack one of them"),
    "preprocessing.modality": Sentence("The modality is {value}"),
    "preprocessing.normalisation": Sentence("Intensities are normalised by {value}"),
    "preprocessing.frames": Sentence("The network sees {value} frames of each clip", "They are still images"),
    "preprocessing.interval": Sentence(
        "It sees one every {value} (in preprocessing.time_unit)", "Frames are at no fixed interval"
    ),
    "preprocessing.time_unit": Sentence("Time is counted in {value}", "There is no time"),
    "preprocessing.unit": Sentence("Their spacing is in {value}"),
    "preprocessing.spacing": Sentence(
        "Images are resampled to {size} {unit}", "Images are not brought to a common spacing", always=True
    ),
    "preprocessing.reduction": Sentence("They are reduced by a factor of {value}"),
    "preprocessing.cascade": Sentence(
        "A first network sees all of each image, on a grid that is coarser by a factor of {value}",
        "There is no first network",
    ),
    "preprocessing.shape": Sentence("Images are brought to {size} voxels", "Images are not brought to one shape"),
    "preprocessing.crop": Sentence("Images are cropped to their {value}", "Images are not cropped", always=True),
    "preprocessing.order": Sentence("Interpolation is {value}"),
    "preprocessing.smallest": Sentence("Smaller images are padded to {size} voxels"),
    "preprocessing.aspect": Sentence(
        "Images of other proportions are brought to one shape by {value}", only_with=("preprocessing.shape",)
    ),
    "preprocessing.border": Sentence("{percent} of each side is cut away", "No border is cut away", always=True),
    "network.name": Sentence("The network is {value}"),
    "network.size": Sentence("Its size is {value}"),
    "network.context": Sentence("With each image it gets {value}", "It gets images only"),
    "network.context_fusion": Sentence("They enter by {value}", "No covariates enter"),
    "network.narrow": Sentence("They are first reduced to {value} features", "They enter as they are"),
    "network.sparsity": Sentence(
        "The loss adds {value} times the length of their weights", "The loss ignores the length of their weights"
    ),
    "network.pretrained": Sentence("It starts from the weights {value}", "It starts from new weights"),
    "network.inflation": Sentence(
        "Weights for images with one axis less are inflated by the {value}", only_with=("network.pretrained",)
    ),
    "training.minutes": Sentence("Training has {value} minutes", "No time is set"),
    "training.steps": Sentence("There are {value} steps", "The number of steps is still open", always=True),
    "training.epochs": Sentence(
        "Training ends after {value} epochs, even if minutes are left", "There are as many epochs as the minutes allow"
    ),
    "training.networks": Sentence(
        "The number of networks is {value}", "There are as many networks as the minutes allow"
    ),
    "training.batch": Sentence("The batch size is {value}"),
    "training.patch": Sentence("The patch is {size} voxels"),
    "training.memory": Sentence("The predicted peak of memory is {value} GiB", "The peak of memory is not predicted"),
    "training.learning_rate": Sentence("The highest learning rate is {value}"),
    "training.weight_decay": Sentence("Weight decay is {value}", "There is no weight decay"),
    "training.warmup": Sentence("The learning rate rises over {percent} of the steps", "There is no warm-up"),
    "training.ema": Sentence("Weights are averaged over about {percent} of the steps", "Weights are not averaged"),
    "training.clip": Sentence("Gradients are clipped at a norm of {value}"),
    "training.precision": Sentence("Arithmetic is in {value}"),
    "training.validations": Sentence("The model is validated {value} times"),
    "training.foreground": Sentence(
        "{percent} of the patches are centred on a structure", "Patches are drawn anywhere"
    ),
    "training.selection": Sentence("The checkpoint is selected by {value}"),
    "training.seed": Sentence("The seed is {value}", "The seed is 0", zero_counts=True),
    "training.deterministic": Sentence("Training is deterministic", "Training is not bit for bit repeatable"),
    "training.device": Sentence("The device is {value}"),
    "training.threads": Sentence("The number of threads is {value}"),
    "training.optimiser": Sentence("The optimiser is {value}"),
    "training.schedule": Sentence("The learning rate falls by the schedule {value}"),
    "training.early_stop": Sentence(
        "Training ends after {value} validations without improvement", "Training never ends early"
    ),
    "training.sampling": Sentence("The sampling of cases is {value}"),
    "training.fairness": Sentence("Differences between groups of people are reduced by {value}"),
    "training.protected": Sentence("These groups are {value}", "No groups of people are named for it"),
    "training.modality_dropout": Sentence(
        "Each image of a case is left out in {percent} of the draws", "No image is left out"
    ),
    "training.compute": Sentence("Steps are computed {value}", "How steps are computed is still open", always=True),
    "augmentation.rotation": Sentence("Images are turned by up to {value} degrees", "Images are not turned"),
    "augmentation.scale": Sentence("They are scaled by up to {percent}", "They are not scaled"),
    "augmentation.shift": Sentence("They are shifted by up to {percent} of the patch", "They are not shifted"),
    "augmentation.accidents": Sentence(
        "Each artefact that is on (motion, ghosts, spikes, metal) changes {percent} of the samples",
        "Motion, ghosts, spikes and metal change no sample",
        only_with=tuple(f"augmentation.{name}" for name in ("motion", "ghosting", "spikes", "metal")),
    ),
    "augmentation.contrast": Sentence("Contrast changes by up to {percent}"),
    "augmentation.brightness": Sentence("Brightness moves by up to {value} standard deviations of the image"),
    "augmentation.gamma": Sentence("The exponent of the grey scale reaches 1 + {value} and its inverse"),
    "augmentation.noise": Sentence("Noise has a standard deviation of up to {value}, in deviations of the image"),
    "augmentation.dose_noise": Sentence(
        "Low-dose noise has a standard deviation of up to {value}, in those of the image"
    ),
    "augmentation.blur": Sentence("Images are blurred by a Gaussian of up to {value} voxels"),
    "augmentation.low_resolution": Sentence("Voxels become up to {percent} longer"),
    "augmentation.bias_field": Sentence(
        "Sensitivity varies over the image by up to {value} (deviation of its logarithm)"
    ),
    "augmentation.motion": Sentence("Motion turns by up to {value} degrees and shifts by up to {value} voxels"),
    "augmentation.ghosting": Sentence("Ghosts weaken every n-th line of k-space by up to {percent}"),
    "augmentation.spikes": Sentence("Stripes of spikes are up to {value} deviations of the image high"),
    "augmentation.metal": Sentence("Streaks of metal are up to {value} deviations of the image high"),
    "augmentation.elastic": Sentence("Images are bent by {percent} of the patch (standard deviation)"),
    "augmentation.cutout": Sentence("A box of up to {percent} of the image's side is covered"),
    "augmentation.mixup": Sentence("Images are mixed (MixUp, alpha {value})"),
    "augmentation.cutmix": Sentence("Boxes are exchanged between images (CutMix, alpha {value})"),
    "augmentation.marks": Sentence(
        "Each label that the first network marked is shown too large or too small in {percent} of the samples",
        "No first network marks labels",
    ),
    "augmentation.quarter_turns": Sentence("Images are rotated by quarter turns"),
    "augmentation.flips": Sentence("They are mirrored along axes {value}", "They are not mirrored", always=True),
    "augmentation.left_right": Sentence(
        "Axis {value} runs from left to right", "Which axis runs from left to right is open", zero_counts=True
    ),
    "augmentation.probability": Sentence("Each of the following changes is applied to {percent} of the samples"),
    "inference.patch": Sentence("The window is {size} voxels"),
    "inference.overlap": Sentence("Windows overlap by {percent}", "Windows do not overlap"),
    "inference.batch": Sentence("The number of windows in a batch is {value}"),
    "inference.flips": Sentence(
        "Predictions are averaged with those mirrored along axes {value}", "Nothing is mirrored"
    ),
    "inference.left_right": Sentence(
        "Axis {value} runs from left to right", "Which axis runs from left to right is open", zero_counts=True
    ),
    "inference.uncertainty": Sentence(
        "Uncertainty is estimated by the method {value}", open="The method of uncertainty is chosen for each model"
    ),
    "inference.draws": Sentence(
        "Weights of the last layer are drawn {value} times", only_with=("inference.uncertainty",)
    ),
    "evaluation.primary": Sentence("The primary metric is {value}"),
    "evaluation.image_only": Sentence(
        "The same network is also trained without the covariates, for as long",
        "No second network is trained without covariates",
    ),
    "evaluation.groups": Sentence("Groups are compared by {value}", "No groups are compared"),
    "evaluation.margin": Sentence(
        "A model that is worse than another by less than {value} in the primary metric counts as not inferior",
        "No margin of non-inferiority is stated",
    ),
    "evaluation.registered": Sentence(
        "The evaluation is registered under the hash {value}", "The evaluation is not registered yet"
    ),
    "transfer.mode": Sentence("Training from other weights is {value}"),
    "transfer.frozen": Sentence(
        "{percent} of the encoder's levels, from the image on, stand still", "No level of the encoder stands still"
    ),
    "transfer.layer_decay": Sentence("Each level of the encoder learns at {value} times the rate of the next"),
    "transfer.head_share": Sentence("Only the head learns in the first {percent} of the steps (with head_first)"),
    "transfer.rank": Sentence("Differences from the source's weights have rank {value} (with lora)"),
    "transfer.minimum": Sentence("The source must have {percent} of the encoder's tensors"),
    "objectives.terms": Sentence("Training lowers the sum of {value}"),
    "objectives.unlabelled": Sentence("Unlabelled images are those in {value}", "No unlabelled images are used"),
    "objectives.unlabelled_hash": Sentence("Their contents have the hash {value}"),
    "objectives.unlabelled_batch": Sentence(
        "A step takes {value} unlabelled images", only_with=("objectives.unlabelled",)
    ),
    "search.minutes": Sentence(
        "Other decisions are tried for {value} minutes", "No minutes are set aside for a search"
    ),
    "search.trials": Sentence("There are {value} trials", "The number of trials is open"),
    "search.configurations": Sentence("The configuration is {value}", "No configurations are compared"),
    "search.steps": Sentence("Each trial has {value} steps", "The length of a trial is open"),
    "guard.gate": Sentence("Images unlike those of training are refused", "No image is refused", always=True),
    "guard.level": Sentence("{percent} of good images may be refused wrongly", only_with=("guard.gate",)),
    "guard.error": Sentence("At most {percent} of the answers may be wrong", "The model answers however unsure it is"),
    "guard.delta": Sentence("This limit may be missed with a probability of {value}", only_with=("guard.error",)),
}
# Values that a sentence names one by one.
MOST_LISTED = 24
# Columns of a terminal that is not wide.
WIDTH, VALUE = 118, 30
# Decisions whose value is a size of the grid.
SIZES = ("patch", "shape", "spacing", "smallest")


def prose(plan: Plan) -> str:
    """Paragraphs of full sentences, one a section; decisions that are off are named at a section's end."""
    sentences = sentences_of(plan)
    return "\n\n".join(
        f"{_title(section)}. {_paragraph(section, plan.sections[section], sentences)}"
        for section in (*TITLES, *sorted(set(plan.sections) - set(TITLES)))
        if plan.sections.get(section)
    )


def paragraphs(plan: Plan, names: Collection[str]) -> dict[str, str]:
    """{title of a section: sentences on those of its decisions that are named}, without those that are off."""
    sentences, made = sentences_of(plan), dict[str, str]()
    for section, decisions in plan.sections.items():
        own = {
            name: decision
            for name, decision in decisions.items()
            if f"{section}.{name}" in names and not is_silent(decision, sentences.get(f"{section}.{name}"))
        }
        if own:
            made[_title(section)] = _paragraph(section, own, sentences)
    return made


def _title(section: str) -> str:
    usual = f"The objective {_words(section)}" if section in objective_names() else section
    return TITLES.get(section, usual)


def sentences_of(plan: Plan) -> dict[str, Sentence]:
    """{"section.name": sentence}, those of the section "task" by the plan's kind of problem.

    `only_with` stays where none of those decisions is on, so that the sentence has no effect.
    """
    made = _sentences_of(plan)
    known = {name: [other for other in one.only_with if other in plan] for name, one in made.items()}
    on = [name for name, others in known.items() if any(not is_off(plan[other], made[other]) for other in others)]
    # A task may lack the decision that would say so.
    on += [name for name, others in known.items() if not others]
    return {**made, **{name: replace(made[name], only_with=()) for name in on}}


def _sentences_of(plan: Plan) -> dict[str, Sentence]:
    if "task.name" not in plan:
        return dict(SENTENCES)
    task = kind(plan["task.name"])
    metrics = {name: task.metrics.of(str(plan[name])).words for name in METRICS if name in plan}
    named = {name: replace(SENTENCES[name], text=SENTENCES[name].text.format(value=metrics[name])) for name in metrics}
    spoken = {f"task.{name}": sentence for name, sentence in setting_sentences(task).items()}
    made = {**SENTENCES, **named, **spoken}
    if not plan.is_of_pictures:
        return made
    return {
        name: replace(one, text=with_pixels(one.text), without=with_pixels(one.without)) for name, one in made.items()
    }


def _paragraph(section: str, decisions: Mapping[str, Decision], sentences: Mapping[str, Sentence]) -> str:
    stated, off, idle = [], [], []
    unit = decisions["unit"].value if "unit" in decisions else MM
    for name, decision in decisions.items():
        part, _, own = name.rpartition(".")
        sentence = sentences.get(f"{section}.{name}", Sentence(f"{_words(own).capitalize()} is {{value}}"))
        if is_off(decision.value, sentence) and (is_silent(decision, sentence) or not sentence.without):
            off.append(_words(name))
        elif is_silent(decision, sentence):
            idle.append(_words(name))
        else:
            text = _stated(sentence, decision, unit)
            stated.append(f"{part.capitalize()}: {text[0].lower()}{text[1:]}" if part else text)
    if off:
        stated.append(f"Off or not set: {', '.join(off)}.")
    if idle:
        stated.append(f"Without effect here: {', '.join(idle)}.")
    return " ".join(stated)


def _stated(sentence: Sentence, decision: Decision, unit: str) -> str:
    value = decision.value
    text = sentence.without if is_off(value, sentence) else sentence.text
    text = sentence.open if value == "auto" and sentence.open else text
    lead = text.format(
        value=in_words(value), size=size_words(value), percent=_percent(value), each=_each(value), unit=unit
    )
    source = f" ({decision.source})" if decision.source else ""
    return f"{lead[0].upper()}{lead[1:]}{_reason(decision.because)}{source}."


def _reason(because: str) -> str:
    because = because.strip().rstrip(".")
    if not because:
        return ""
    if because[0].isdigit():  # figures speak for themselves
        return f": {because}"
    return f", as {because}" if because.startswith((BY_HAND, "asked for")) else f", because {because}"


def is_silent(decision: Decision, sentence: Sentence | None) -> bool:
    """Whether a decision is off by the plan, or has no effect, and its reason is not worth reading."""
    if decision.because == BY_HAND:
        return False
    if sentence is not None and sentence.only_with:
        return True
    return is_off(decision.value, sentence) and not (sentence is not None and sentence.always)


def is_off(value: Any, sentence: Sentence | None) -> bool:
    """Whether a decision with this value, and this sentence where it has one, says none, off or no."""
    if value is None or (sentence is not None and sentence.zero_counts):
        return value is None
    return value is False or value in (0, [], ()) or value in ("none", "natural")


def _words(name: str) -> str:
    return name.replace("_", " ")


@singledispatch
def in_words(value: Any) -> str:
    """A value as a person would write it."""
    return str(value)


in_words.register(str, str)


@in_words.register
def _(value: None) -> str:
    return "none"


@in_words.register
def _(value: bool) -> str:
    return "yes" if value else "no"


@in_words.register
def _(value: float) -> str:
    return f"{value:g}"


@in_words.register
def _(value: Mapping) -> str:
    named = value.get("name", value.get("method"))
    if len(value) > MOST_LISTED and all(isinstance(one, Mapping) for one in value.values()):
        return f"{len(value)} from {next(iter(value))} to {next(reversed(value))}"
    return str(named) if named else ", ".join(f"{_words(key)} {in_words(one)}" for key, one in value.items())


@in_words.register
def _(value: Sequence) -> str:
    if not value:
        return "none"
    return ", ".join(dict.fromkeys(in_words(one) for one in value)) if _is_named(value) else _listed(value)


def _is_named(values: Sequence[Any]) -> bool:
    return all(isinstance(one, Mapping | str) for one in values)


def _listed(values: Sequence[Any]) -> str:
    if len(values) > MOST_LISTED:
        return f"{len(values)} from {in_words(values[0])} to {in_words(values[-1])}"
    return (
        f"({', '.join(in_words(one) for one in values)})"
        if len(values) > 1
        else in_words(values[0])
        if values
        else "none"
    )


def _each(value: Any) -> str:
    """ "2 for anterior, 2 for posterior": a name may be a number too, and then "1 2" says nothing."""
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{in_words(one)} for {key}" for key, one in value.items())
    return in_words(value)


def size_words(value: Any) -> str:
    """Voxels or mm per axis: "40 x 56 x 40"."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return in_words(value)
    return " x ".join(in_words(one) for one in value)


def _percent(value: Any) -> str:
    return f"{100 * value:g} %" if isinstance(value, int | float) else in_words(value)


def overview(plan: Plan, *, whole: bool = False) -> str:
    """The plan as text: what would be trained in one line, then its sections.

    whole: with the decisions that have their defaults and whose reasons say nothing of these data
    """
    lines, sentences = [_headline(plan)], sentences_of(plan)
    usual = {name for name, _ in plan if not whole and is_default(plan, name) and not _is_always(sentences.get(name))}
    for section, decisions in plan.sections.items():
        own = {name: one for name, one in decisions.items() if f"{section}.{name}" not in usual}
        lines += ["", section, *_rows(section, own, sentences)] if own else []
    if usual:
        lines += ["", f"{len(usual)} more decisions have their defaults: --all-decisions lists them."]
    return "\n".join(lines)


def _is_always(sentence: Sentence | None) -> bool:
    return sentence is not None and sentence.always


def _headline(plan: Plan) -> str:
    patch = size_words(plan["training.patch"])
    return (
        f"{plan['task.name']} with {plan['network.name']} in {plan['preprocessing.ndim']}D, patch {patch}, batch "
        f"{plan['training.batch']}, {plan['training.precision']} on {plan['training.device']}, "
        f"at most about {plan['training.memory']:.2f} GiB of memory"
    )


def _rows(section: str, decisions: Mapping[str, Decision], sentences: Mapping[str, Sentence]) -> Iterator[str]:
    off = [name for name, one in decisions.items() if is_silent(one, sentences.get(f"{section}.{name}"))]
    shown = {name: one for name, one in decisions.items() if name not in off}
    width = max((len(name) for name in (*shown, "off")), default=0)
    for name, decision in shown.items():
        value = shorten(
            size_words(decision.value) if name in SIZES else in_words(decision.value), VALUE, placeholder=" ..."
        )
        yield from _wrapped(f"  {name:{width}}  {value:{VALUE}}  ", decision.because)
    if off:
        yield from _wrapped(f"  {'off':{width}}  ", ", ".join(off))


def _wrapped(lead: str, text: str) -> list[str]:
    """The text beside its lead, further lines under its beginning."""
    first, *rest = wrap(text, max(WIDTH - len(lead), 30)) or [""]
    return [f"{lead}{first}", *(" " * len(lead) + line for line in rest)]
