"""A plan's reasons as prose: a paragraph for each section, in the order in which the data pass through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

from isocenter.values import BY_HAND, MM, Decision, Plan

TITLES = {
    "task": "The task",
    "split": "Who trains and who tests",
    "preprocessing": "What the network sees",
    "network": "The network",
    "training": "How it learns",
    "augmentation": "How images are varied",
    "inference": "How it predicts",
    "evaluation": "What is to be shown",
    "search": "What is tried beforehand",
}

# What a decision says; after it, where it differs, what it says when the value is none, zero or no.
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "task.name": ("The problem is one of {value}",),
    "task.classes": ("The classes are {value}",),
    "task.labels": ("The structures are {value}",),
    "task.loss": ("The loss is {value}",),
    "task.weighting": ("The losses of the parts are weighed by {value} weights",),
    "task.loss_weights": ("The loss of each part counts by {each}",),
    "task.smoothing": ("{percent} of each target is spread over all classes", "No target is smoothed"),
    "task.tolerance": ("A surface counts as found within this many mm (pixels where the spacing is unknown): {each}",),
    "task.operating_point": ("The threshold is chosen by the rule {value}", "No operating point is set"),
    "task.prevalence": ("Predictive values are stated at a prevalence of {each}", "No other prevalence is stated"),
    "task.counts": ("The training cases are {each}",),
    "task.centrelines": ("Centrelines are followed of {value}", "No structure has a centreline"),
    "task.weights": ("In the loss the classes weigh {each}", "In the loss all classes weigh alike"),
    "task.prior_shift": ("Log odds are corrected by {each}", "Probabilities need no correction of the prior"),
    "task.thresholds": ("The thresholds of probability are {each}", "No threshold is set yet"),
    "task.order": ("Grades are taught and measured in their order by {value}", "The classes have no order"),
    "task.costs": ("Mistakes cost {value}", "No costs of mistakes are stated"),
    "task.findings": ("The findings are {value}",),
    "task.model": ("The model is {value}",),
    "task.horizons": ("What is foretold is stated by the times {value}",),
    "task.unit": ("Times are counted in {value}", "In what times are counted is not known"),
    "task.scale": ("A time of {value} counts as 1",),
    "task.edges": ("Intervals of time end at {value}",),
    "task.followed": ("Nobody was followed for longer than {value}",),
    "task.censoring": ("Those who were censored are made up for by weights ({value})",),
    "task.baseline": ("The baseline hazard is {value}", "No baseline hazard is known yet"),
    "task.median_risk": ("Risks are parted at {value}", "No risk is set yet at which cases are parted"),
    "task.postprocessing": ("Afterwards the masks are cleaned by {value}", "No post-processing is set"),
    "task.regions": ("Structures that overlap are made of the values {each}", "No two structures overlap"),
    "task.ignore": ("The value {value} of the masks is ignored", "No value of the masks is ignored"),
    "task.background": ("The value {value} of the masks is the background", "The background of the masks is 0"),
    "task.sparse": ("Masks are known in single {value} only", "Masks are known as a whole"),
    "task.readers": ("Of several readers, what is taught is decided by {value}",),
    "task.observers": ("The readers are {value}", "No readers are named"),
    "task.targets": ("What is measured: {value}",),
    "task.units": ("The units are {each}", "No unit is known"),
    "task.mean": ("The mean is {each}",),
    "task.deviation": ("The standard deviation is {each}",),
    "task.noise": ("The network says its own error bar, by {value} noise", "The network says no error bar"),
    "task.error_factor": ("Error bars are multiplied by {each}", "No factor of error bars is set yet"),
    "split.method": ("The split is {value}",),
    "split.folds": ("There are {value} folds", "There are no folds"),
    "split.seed": ("The parts are drawn by seed {value}", "The parts have no seed of their own"),
    "preprocessing.ndim": ("The network works in {value} dimensions",),
    "preprocessing.channels": ("Its channels are {value} (numbered where the files do not name them)",),
    "preprocessing.absent": ("A case may lack {value}", "No case may lack one of them"),
    "preprocessing.modality": ("The modality is {value}",),
    "preprocessing.normalisation": ("Intensities are normalised by {value}",),
    "preprocessing.frames": ("Of each clip {value} frames are looked at", "They are still images"),
    "preprocessing.interval": (
        "They are looked at every {value} (in preprocessing.time_unit)",
        "Frames are at no fixed interval",
    ),
    "preprocessing.time_unit": ("Time is counted in {value}", "There is no time"),
    "preprocessing.unit": ("Their spacing is in {value}",),
    "preprocessing.spacing": (
        "Images are resampled to {size} {unit}",
        "Images are not brought to a common spacing",
    ),
    "preprocessing.reduction": ("They are brought down by a factor of {value}",),
    "preprocessing.cascade": (
        "Before it, networks see all of each image on a grid that is coarser by a factor of {value}",
        "No network goes before it",
    ),
    "preprocessing.shape": ("Images are brought to {size} voxels", "Images are not brought to one shape"),
    "preprocessing.crop": ("Images are cropped to their {value}", "Images are not cropped"),
    "preprocessing.order": ("Interpolation is {value}",),
    "preprocessing.smallest": ("Smaller images are padded to {size} voxels",),
    "preprocessing.aspect": ("Where images are brought to one shape, other proportions are met by {value}",),
    "preprocessing.border": ("{percent} of each side is cut away", "No border is cut away"),
    "network.name": ("The network is {value}",),
    "network.size": ("Its size is {value}",),
    "network.context": ("It is told, beside each image, {value}", "It sees images alone"),
    "network.context_fusion": ("It uses them by {value}", "It uses no covariates"),
    "network.narrow": ("They are brought down to {value} features first", "They are told as they are"),
    "network.sparsity": (
        "The weights of these features cost {value} of their length",
        "No weight of them costs anything",
    ),
    "network.pretrained": ("It begins from the weights {value}", "It begins from fresh weights"),
    "network.inflation": ("Kernels of weights for images of one axis less would be inflated by the {value}",),
    "training.minutes": ("Training has {value} minutes", "No time is set"),
    "training.steps": ("There are {value} steps", "The number of steps is still open"),
    "training.epochs": (
        "Minutes for more than {value} epochs are left over",
        "Epochs are as many as the minutes allow",
    ),
    "training.batch": ("A batch has {value} samples",),
    "training.patch": ("The patch is {size} voxels",),
    "training.memory": ("The predicted peak of memory is {value} GiB", "The peak of memory is not predicted"),
    "training.learning_rate": ("The highest learning rate is {value}",),
    "training.weight_decay": ("Weight decay is {value}", "There is no weight decay"),
    "training.warmup": ("The rate rises over {percent} of the steps", "There is no warm-up"),
    "training.ema": ("Weights are averaged over about {percent} of the steps", "Weights are not averaged"),
    "training.clip": ("Gradients are clipped at a norm of {value}",),
    "training.precision": ("Arithmetic is in {value}",),
    "training.validations": ("The validation cases are looked at {value} times",),
    "training.foreground": ("{percent} of the patches are centred on a structure", "Patches are drawn anywhere"),
    "training.selection": ("The checkpoint is selected by {value}",),
    "training.seed": ("The seed is {value}", "The seed is 0"),
    "training.deterministic": ("Training is deterministic", "Training is not bit for bit repeatable"),
    "training.device": ("The device is {value}",),
    "training.threads": ("The number of threads is {value}",),
    "training.optimiser": ("The optimiser is {value}",),
    "training.schedule": ("The rate falls by the schedule {value}",),
    "training.early_stop": ("Training ends after {value} validations without improvement", "Training never ends early"),
    "training.sampling": ("The sampling of cases is {value}",),
    "training.modality_dropout": ("Each image of a case is left out in {percent} of the draws", "No image is left out"),
    "training.compute": ("Steps are computed {value}", "How steps are computed is still open"),
    "augmentation.rotation": ("Images are turned by up to {value} degrees", "Images are not turned"),
    "augmentation.scale": ("They are scaled by up to {percent}", "They are not scaled"),
    "augmentation.shift": ("They are shifted by up to {percent} of the patch", "They are not shifted"),
    "augmentation.accidents": (
        "Motion, ghosts, spikes and metal, where they are on, befall {percent} of the samples",
        "Motion, ghosts, spikes and metal befall no sample",
    ),
    "augmentation.contrast": ("Contrast changes by up to {percent}",),
    "augmentation.brightness": ("Brightness moves by up to {value} standard deviations of the image",),
    "augmentation.gamma": ("The exponent of the grey scale reaches 1 + {value} and its inverse",),
    "augmentation.noise": ("Noise has a standard deviation of up to {value}, in deviations of the image",),
    "augmentation.dose_noise": ("Low-dose noise has a standard deviation of up to {value}, in those of the image",),
    "augmentation.blur": ("Images are blurred by a Gaussian of up to {value} voxels",),
    "augmentation.low_resolution": ("Voxels become up to {percent} longer",),
    "augmentation.bias_field": ("Sensitivity varies over the image by up to {value} (deviation of its logarithm)",),
    "augmentation.motion": ("Motion turns by up to {value} degrees and shifts by up to {value} voxels",),
    "augmentation.ghosting": ("Ghosts weaken every n-th line of k-space by up to {percent}",),
    "augmentation.spikes": ("Stripes of spikes are up to {value} deviations of the image high",),
    "augmentation.metal": ("Streaks of metal are up to {value} deviations of the image high",),
    "augmentation.elastic": ("Images are bent by {percent} of the patch (standard deviation)",),
    "augmentation.cutout": ("A box of up to {percent} of the image's side is covered",),
    "augmentation.mixup": ("Images are mixed (MixUp, alpha {value})",),
    "augmentation.cutmix": ("Boxes are exchanged between images (CutMix, alpha {value})",),
    "augmentation.marks": (
        "Of what was marked before, each label is marked too large or too small in {percent} of the samples",
        "Nothing was marked before",
    ),
    "augmentation.quarter_turns": ("Images are turned by quarters",),
    "augmentation.flips": ("They are mirrored along axes {value}", "They are not mirrored"),
    "augmentation.left_right": ("Axis {value} runs from left to right", "Which axis runs from left to right is open"),
    "augmentation.probability": ("Each change of those that follow befalls {percent} of the samples",),
    "inference.patch": ("The window is {size} voxels",),
    "inference.overlap": ("Windows overlap by {percent}", "Windows do not overlap"),
    "inference.batch": ("The number of windows that go through the network at a time is {value}",),
    "inference.flips": ("Predictions are averaged with those mirrored along axes {value}", "Nothing is mirrored"),
    "inference.left_right": ("Axis {value} runs from left to right", "Which axis runs from left to right is open"),
    "evaluation.primary": ("The primary metric is {value}",),
    "evaluation.image_only": (
        "The same network is trained as long without the covariates too",
        "No second network is trained without covariates",
    ),
    "evaluation.registered": ("What is to be shown has the hash {value}", "What is to be shown is not registered yet"),
    "search.minutes": ("Other decisions are tried for {value} minutes", "Nothing is tried beforehand by the clock"),
    "search.trials": ("There are {value} trials", "The number of trials is open"),
    "search.steps": ("Each trial has {value} steps", "The length of a trial is open"),
}
# Values that a sentence names one by one.
MOST_LISTED = 24
# Names of which 0 is a value like any other.
COUNTED = ("task.ignore", "augmentation.left_right", "inference.left_right", "training.seed", "split.seed")


def prose(plan: Plan) -> str:
    """Paragraphs of full sentences, a section each; what is switched off is named together at a section's end."""
    return "\n\n".join(
        f"{TITLES.get(section, section)}. {_paragraph(section, plan.sections[section])}"
        for section in (*TITLES, *sorted(set(plan.sections) - set(TITLES)))
        if plan.sections.get(section)
    )


def _paragraph(section: str, decisions: Mapping[str, Decision]) -> str:
    sentences, off = [], []
    unit = decisions["unit"].value if "unit" in decisions else MM
    for name, decision in decisions.items():
        # A part of a task decides as a task does: task.segmentation.loss says what task.loss says.
        part, _, own = name.rpartition(".")
        whole = f"{section}.{own}"
        if is_nothing(whole, decision.value) and len(SENTENCES.get(whole, ())) < 2:
            off.append(_words(name))
        else:
            sentence = _sentence(whole, decision, unit)
            sentences.append(f"{part.capitalize()}: {sentence[0].lower()}{sentence[1:]}" if part else sentence)
    if off:
        sentences.append(f"Off or not set: {', '.join(off)}.")
    return " ".join(sentences)


def _sentence(name: str, decision: Decision, unit: str = MM) -> str:
    forms = SENTENCES.get(name, (f"{_words(name.partition('.')[2]).capitalize()} is {{value}}",))
    value = decision.value
    form = forms[-1] if is_nothing(name, value) else forms[0]
    lead = form.format(
        value=in_words(value), size=size_words(value), percent=_percent(value), each=_each(value), unit=unit
    )
    source = f" ({decision.source})" if decision.source else ""
    return f"{lead[0].upper()}{lead[1:]}{_reason(decision.because)}{source}."


def _reason(because: str) -> str:
    because = because.strip().rstrip(".")
    if not because:
        return ""
    return f", as {because}" if because.startswith((BY_HAND, "asked for")) else f", because {because}"


def is_nothing(name: str, value: Any) -> bool:
    """Whether the decision of this name (with its section) says none, off or no."""
    if value is None or name in COUNTED:
        return value is None
    return value is False or value in (0, [], ()) or value == "none"


def _words(name: str) -> str:
    return name.replace("_", " ")


@singledispatch
def in_words(value: Any) -> str:
    """A value as a person would write it."""
    return str(value)


in_words.register(str, str)


@in_words.register
def _(value: float) -> str:
    return f"{value:g}"


@in_words.register
def _(value: Mapping) -> str:
    named = value.get("name", value.get("method"))
    if len(value) > MOST_LISTED and _is_nested(value):
        return f"{len(value)} from {next(iter(value))} to {next(reversed(value))}"
    return str(named) if named else ", ".join(f"{_words(key)} {in_words(one)}" for key, one in value.items())


@in_words.register
def _(value: Sequence) -> str:
    return ", ".join(dict.fromkeys(in_words(one) for one in value)) if _is_named(value) else _listed(value)


def _is_nested(values: Mapping[str, Any]) -> bool:
    return all(isinstance(one, Mapping) for one in values.values())


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
