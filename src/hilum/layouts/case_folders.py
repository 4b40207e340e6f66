"""A folder a case: images known by what their names say, and masks among them or in a folder of their own.

As in BraTS (`x/x_t1.nii.gz`, `x/x_seg.nii.gz`), KiTS (`x/imaging.nii.gz`, `x/segmentation.nii.gz`) and
TotalSegmentator (`x/ct.nii.gz`, `x/segmentations/liver.nii.gz`). Where no name says mask, the values of volumes
do, as in the challenge on white matter lesions (`x/wmh.nii.gz`, `x/pre/FLAIR.nii.gz`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hilum import errors
from hilum.errors import DatasetError, HilumError
from hilum.files import modality_words
from hilum.layouts import image_folders, suffix_masks
from hilum.layouts.cases import cell_loading, mask_pairs, unnamed_masks
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import IMAGE, MaskFile, NamedCase, PairKey
from hilum.layouts.cases.names import FORMAT_ENDING, IMAGES, LABELS, MASK_NAME, WORDS
from hilum.layouts.layout import DatasetOptions, Example, Layout, Problems, Reading
from hilum.values import Problem, grouping

# More kinds of image than this in one folder are cases; more than so many where folders of several cases hold the same
# and most of their names say images, as the 20 of UCSF-PDGM do.
MOST_IMAGES, MOST_NAMED_IMAGES = 16, 40
# Cases of which the masks are read to know whether they are of one structure.
MOST_READ = 5


@dataclass(frozen=True)
class CaseFolder:
    """The files in the folder of one case.

    images: {what its name says: file}
    masks:  {structure: files}; "" where a name says no structure
    """

    images: dict[str, FolderMember] = field(default_factory=dict)
    masks: dict[str, list[FolderMember]] = field(default_factory=lambda: defaultdict(list))

    def to_named_case(self, key: PairKey, names: Sequence[str]) -> NamedCase:
        """The case under this key; names: of the images of all cases, of which a single one is no channel's."""
        masks = (MaskFile(member, structure=name) for name, own in self.masks.items() for member in own)
        images = {name if len(names) > 1 else IMAGE: self.images[name] for name in names if name in self.images}
        return NamedCase(key, images, tuple(masks))

    def add_mask(self, name: str, member: FolderMember, structure: str) -> None:
        """Add a mask whose name states its structure, or else this one."""
        fit = MASK_NAME.match(name)
        self.masks[(fit["before"] or fit["after"] or "") if fit else structure].append(member)


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Images of the same names in most folders, and masks, or names that only images of one case have.

    Or files in common folders that begin with the names of cases and end in those of images.
    """
    members = image_folders.within_images(folder.images)
    if unnamed_masks.label_maps_beside_series(folder, options.read):
        return False
    if folder.is_file or any(IMAGES.intersection(map(str.lower, member.folders)) for member in members):
        return False
    cases, _ = _cases(folder, options)
    names = Counter(name for case in cases.values() for name in case.images)
    are_named = len(cases) > 1 and 2 * sum(map(mask_pairs.is_image_word, names)) > len(names)
    most = MOST_NAMED_IMAGES if are_named else MOST_IMAGES
    is_alike = 0 < len(names) <= most and all(2 * count > len(cases) for count in names.values())
    if not is_alike or suffix_masks.fits(folder, options):
        return False
    has_masks = any(case.masks for case in cases.values())
    is_bare = len(names) == 1 < len(cases) and not has_masks and options.references
    if is_bare and unnamed_masks.masks_among(members, options.read):
        return False  # label maps would be images too
    # The folder that was given is itself the case.
    is_one = len(cases) == 1 and not all(member.folders for member in members)
    if is_one and len(members) > 1 and len({word for _, word in mask_pairs.split_by_words(members).values()}) == 1:
        return False  # x1_ct and x2_ct are of two cases
    if is_one or not has_masks:
        return (not is_one or len(cases) == 1) and all(mask_pairs.is_image_word(name) for name in names)
    return not any(set(case.masks) & set(case.images) for case in cases.values())


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Cases by their folders; several structures become one label map.

    Raises DatasetError where some masks name a structure and others none, UsageError for a structure that is not there.
    """
    cases, kinds_of_masks = _cases(folder, options)
    _check_versions(cases.values())
    if options.references:
        _check_label_maps(cases.values(), kinds_of_masks, options)
        _check_structures(cases.values(), options)
    cases, other_names = _with_only_mask(_with_map_of_several(cases, options))
    names = sorted({name for case in cases.values() for name in case.images})
    whole = [case.to_named_case(key, names) for key, case in cases.items() if case.images]
    bare = [key.name for key, case in cases.items() if not case.images]
    masks = "a mask" if len(kinds_of_masks) == 1 else "masks"
    by_values = f"; {errors.list_phrase(kinds_of_masks)} taken for {masks} by the values" if kinds_of_masks else ""
    how = f"a folder per case with {errors.list_phrase(names)}{by_values}"
    modality = modality_words.common_modality(names)
    problems = (*mask_pairs.missing_image_problem(bare), *_other_name_warning(other_names))
    return mask_pairs.reading_of_cases(
        whole, folder, options, how=how, modality=modality, problems=problems, is_named=True
    )


def _cases(folder: Folder, options: DatasetOptions) -> tuple[dict[PairKey, CaseFolder], list[str]]:
    """The cases, with masks by their names or else by their values, and the names of the latter; read once."""
    if CaseFolder not in folder.known:
        cases = _sort_cases(folder)
        kinds = grouping.by_key(pair for case in cases.values() for pair in case.images.items())
        is_named = len(cases) == 1 or any(case.masks for case in cases.values())
        kinds_of_masks = [] if is_named else unnamed_masks.mask_kinds(kinds, options.read)
        for case in cases.values():
            for name in case.images.keys() & set(kinds_of_masks):
                case.masks[name if len(kinds_of_masks) > 1 else ""].append(case.images.pop(name))
        folder.known[CaseFolder] = cases, kinds_of_masks
    known: tuple[dict[PairKey, CaseFolder], list[str]] = folder.known[CaseFolder]
    return known


def _without_own_folders(members: Sequence[FolderMember]) -> Sequence[FolderMember]:
    """Files that each lie in a folder of their own name as files of the folder around it, called by their last word.

    So it is in challenges of SMIR and VSD, as BraTS 2015 and ISLES: VSD.Brain.XX.O.MR_Flair.54512 is MR_Flair.
    """
    words = [[word for word in member.stem.split(".") if not word.isdecimal()] for member in members]
    are_own = all(len(member.folders) > 1 and member.folders[-1] == member.stem for member in members)
    if not are_own or any(len(own) < 2 for own in words):
        return members
    return [replace(one, folders=one.folders[:-1], stem=own[-1]) for one, own in zip(members, words, strict=True)]


def _sort_cases(folder: Folder) -> dict[PairKey, CaseFolder]:
    """Cases by their folders, or by the names of their files where several lie in one."""
    cases: dict[PairKey, CaseFolder] = defaultdict(CaseFolder)
    members = _without_own_folders(image_folders.within_images(folder.images))
    named = _in_common_folders(members)
    own = {member.folders for member in members if member.folders}
    common = _common_folder(own)
    has_folders = any(len(folders) > 1 or folders[0].lower() not in LABELS for folders in own)
    for member in members:
        is_in_masks = member not in named and len(member.folders) > 1 and member.folders[-1].lower() in LABELS
        if member in named:
            place, name = (*member.folders, named[member][0]), named[member][1]
        else:
            # A file that lies beside the folders of other cases is a case of its own.
            around = member.folders or ((member.stem,) if has_folders else (folder.root.resolve().name,))
            around = around[:-1] if is_in_masks or around[-1:] == common else around
            # The first folder that holds files is the case's, with what lies below it.
            place = next((around[:n] for n in range(1, len(around)) if around[:n] in own), around)
            name = _own_name(member.stem, place) or "image"
        case = cases[PairKey(place[:-1], place[-1], member.split)]
        if MASK_NAME.match(name) or is_in_masks:
            case.add_mask(name, member, name)
        elif name in case.images:  # `_check_versions` refuses it
            case.images[f"{member.path.parent.name}_{name}"] = member
        else:
            case.images[name] = member
    return _with_distant_masks(cases)


def _with_distant_masks(cases: Mapping[PairKey, CaseFolder]) -> dict[PairKey, CaseFolder]:
    """The cases, each with masks from folders of masks alone that begin with its name: as segm/x_segm for images/x/."""
    owners = {key.stem: case for key, case in cases.items() if case.images}
    known = dict(cases)
    for key, case in cases.items():
        named = [(member, _owner(member.stem, owners)) for masks in case.masks.values() for member in masks]
        if case.images or not all(owner for _, owner in named):
            continue
        del known[key]
        for member, owner in named:
            owners[owner].add_mask(_own_name(member.stem, (owner,)), member, "")
    return known


def _owner(stem: str, names: Collection[str]) -> str:
    """The longest of the names that another begins with and a mark follows; empty where there is none."""
    own = [name for name in names if stem.startswith(name) and not stem[len(name) : len(name) + 1].isalnum()]
    return max(own, key=len, default="")


def _common_folder(places: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """The last folder of all files where it is the same of several cases, as `pre` of 1/pre and 2/pre; else empty."""
    lasts = {folders[-1:] for folders in places}
    return lasts.pop() if len(lasts) == 1 < len(places) and min(map(len, places)) > 1 else ()


def _check_versions(cases: Iterable[CaseFolder]) -> None:
    """Raise DatasetError where two folders in that of a case hold images of one name, as before and after a step."""
    for case in cases:
        by_name = grouping.by_key((one.stem, one.path.parent) for one in case.images.values())
        if again := next((name for name, parents in by_name.items() if len(parents) > 1), None):
            parents = sorted(by_name[again])
            folder_names = errors.list_phrase([parent.name for parent in parents])
            problem = f"holds {again} in each of {folder_names}: only one can be meant"
            raise DatasetError(problem, str(parents[0].parent), "Move the others out of the data set")


def _check_label_maps(cases: Collection[CaseFolder], kinds_of_masks: Sequence[str], options: DatasetOptions) -> None:
    """Raise DatasetError for several label maps that only their values mark, and for one among images beside a mask.

    kinds_of_masks: the kinds that are masks by their values
    """
    first = next((case for case in cases if case.masks and case.images), CaseFolder())
    maps = [member.path for name in kinds_of_masks if len(kinds_of_masks) > 1 for member in first.masks.get(name, ())]
    if any(cell_loading.load_mask((path,), (), options.read).data.max() > 1 for path in maps):
        map_names = errors.list_phrase(kinds_of_masks)
        problem = f"{map_names} are label maps by their values, each with several numbers: only one can be meant"
        remedy = "Move the others out of the data set"
        raise DatasetError(problem, str(maps[0].parent), remedy)
    kinds = grouping.by_key(pair for case in cases if first.masks for pair in case.images.items())
    sure = {name for name in kinds if all(map(mask_pairs.is_image_word, filter(None, WORDS.split(name))))}
    doubtful = {name: own for name, own in kinds.items() if name not in sure}
    found = unnamed_masks.volumes_like_label_maps(doubtful, options.read) if len(kinds) > 1 else []
    if 0 < len(found) < len(kinds):
        problem = f"{errors.list_phrase(found)} would be an image of each case, and looks like a label map"
        remedy = (
            "Move it out of the data set, or call it a mask (liver_mask) if it shows a structure; to show it to the "
            "network, list it in dataset.csv"
        )
        raise DatasetError(problem, str(doubtful[found[0]][0].path.parent), remedy)


def _check_structures(cases: Collection[CaseFolder], options: DatasetOptions) -> None:
    """Raise DatasetError for masks that name structures in a folder beside one that names none, and for label maps.

    The first and the last of a case's masks are read, and are maps of several structures by numbers above 1.
    """
    first = next((case for case in cases if len(case.masks) > 1 and case.images), CaseFolder())
    names = sorted(first.masks)
    plain = {member.path.parent for member in first.masks.get("", ())}
    parents = [member.path.parent for name in filter(None, names) for member in first.masks[name]]
    inside = {parent.name for parent in parents if parent.parent in plain}
    if inside:
        places, one = f"{errors.list_phrase(sorted(inside))}/", first.masks[""][0].path.name
        problem = f"holds a mask that names no structure, {one}, and others in {places}: only one can be meant"
        remedy = f"Move each {places} out of the data set if {one} is meant, else that file"
        raise DatasetError(problem, str(next(iter(plain))), remedy)
    if plain:
        return  # `structure_labels` refuses it
    ends = [first.masks[name][0].path for name in dict.fromkeys((*names[:1], *names[-1:]))]
    if maps := [path for path in ends if _holds_numbers(path, options)]:
        mask_names = errors.list_phrase(names)
        problem = f"{maps[0].name} is one of {len(names)} masks of the case ({mask_names}), and holds several numbers"
        remedy = "Keep the one that is meant and move the others out of the data set"
        raise DatasetError(problem, str(maps[0].parent), remedy)


def _with_map_of_several(cases: dict[PairKey, CaseFolder], options: DatasetOptions) -> dict[PairKey, CaseFolder]:
    """The cases, with masks of no stated structure where the only name is that of label maps: tumor_segmentation.

    By the values of the first that can be read: the name is that of the whole.
    """
    with_masks = [case for case in cases.values() if case.masks]
    names = {name for case in with_masks for name in case.masks}
    if not options.references or len(names) != 1 or "" in names:
        return cases
    [name] = names
    if not any(_holds_numbers(case.masks[name][0].path, options) for case in with_masks[:MOST_READ]):
        return cases
    return {key: replace(case, masks={"": case.masks[name]}) if case.masks else case for key, case in cases.items()}


def _holds_numbers(path: Path, options: DatasetOptions) -> bool:
    """Whether a mask is of several structures; False where it cannot be read, which is said of its case."""
    with suppress(HilumError):
        return bool(cell_loading.load_mask((path,), (), options.read).data.max() > 1)
    return False


def _with_only_mask(cases: dict[PairKey, CaseFolder]) -> tuple[dict[PairKey, CaseFolder], list[str]]:
    """The cases, and files that are called otherwise than the masks of the others, as one of BraTS 2020.

    It is the mask of its case if that has no other, and if most cases have masks without a word for a structure.
    """
    plain = sum("" in case.masks for case in cases.values())
    times = Counter(name for case in cases.values() for name in case.masks)
    single = {key: case.masks for key, case in cases.items() if len(case.masks) == 1}
    lone = {key: own for key, own in single.items() for name in own if name and times[name] == 1}
    if len(lone) != len(times) - 1 or 2 * plain <= len(cases):
        return cases, []
    named = {key: replace(cases[key], masks={"": next(iter(masks.values()))}) for key, masks in lone.items()}
    return {**cases, **named}, [member.name for masks in lone.values() for own in masks.values() for member in own]


def _other_name_warning(names: Sequence[str]) -> Problems:
    """The warning on masks that are called otherwise than those of the other cases."""
    what = f"{errors.list_phrase(names)} is taken for the mask of its case"
    why, remedy = "it is called otherwise than those of the others", "Take it away if it shows something else"
    return (Problem("warning", what, why=why, remedy=remedy),) if names else ()


def _in_common_folders(members: Sequence[FolderMember]) -> dict[FolderMember, tuple[str, str]]:
    """{file: its case, and what its name says} of files of several cases in a folder, as x_t1, x_flair and x_seg.

    Empty where a folder holds one case, where each file is the only one of its, and where a case has no image.
    """
    parted = mask_pairs.split_by_words(members)
    words = {word for _, word in parted.values()}
    placed = {member: (member.folders, case) for member, (case, _) in parted.items()}
    with_image = {placed[member] for member, (_, word) in parted.items() if not MASK_NAME.match(word)}
    in_folder = Counter(folders for folders, _ in with_image)
    is_known = len(words) > 1 and with_image == set(placed.values()) and min(in_folder.values(), default=0) > 1
    return parted if is_known else {}


def _own_name(stem: str, place: Sequence[str]) -> str:
    """A file's name without the names of its folders: t1 of x/x_t1, a/b/a_b_t1, x_nifti/x_t1, and of t/t1."""
    for above in ("_".join(place[start:]) for start in range(len(place))):
        for known in (above, FORMAT_ENDING.sub("", above)):
            rest = stem[len(known) :]
            if stem.lower().startswith(known.lower()) and not rest[:1].isalnum():
                return rest.strip("_.- ")
    return stem


EXAMPLE: Example = (
    {f"p{n}/ct.nii.gz": 100 + n for n in range(3)}
    | {f"p{n}/segmentations/liver.nii.gz": (1, 0) for n in range(3)}
    | {f"p{n}/segmentations/spleen.nii.gz": (0, 1) for n in range(3)}
)
WHAT = "a folder per case: images known by their names, masks beside them or in a folder"
LAYOUT = Layout("case_folders", WHAT, fits, read, frozenset({"class_folders", "plain_images"}), EXAMPLE)
