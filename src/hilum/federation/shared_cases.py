"""Images and patients that two sites share: looked for where one person holds all data, and else stated as unknown.

Hashes or small images that travel would let sites recognise each other's patients, to which no party agrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from hilum import errors
from hilum.quality import leakage
from hilum.quality.dataset_examination import Examination

UNSEARCHED = (
    "Whether two sites hold the same images or patients was not looked for: what would show it would show whose they "
    "are. A case of two sites may train at one and test at the other."
)


def shared_sentences(examinations: Mapping[str, Examination]) -> Iterator[str]:
    """What each two sites of one machine share. examinations: {site: of its cases}"""
    for first, second in combinations(examinations, 2):
        ours = examinations[first]
        theirs = examinations[second]
        looks = {(site, case): look for site in (first, second) for case, look in examinations[site].looks.items()}
        named = {f"{site}: {case}": look for (site, case), look in looks.items()}
        sites = {f"{site}: {case}": site for site, case in looks}
        across = [twin for twin in leakage.find_twins(named) if sites[twin.first] != sites[twin.second]]
        for how, is_exact in (("the same image", True), ("nearly the same image", False)):
            if count := sum(twin.exact == is_exact for twin in across):
                pairs = errors.count_phrase(count, "pair")
                yield (
                    f"{first} and {second} hold {pairs} of cases with {how}: what trains at one may test at the other."
                )
        if ours.dataset.patients_known and theirs.dataset.patients_known:
            people = {case.patient for case in ours.dataset} & {case.patient for case in theirs.dataset}
            if people:
                names = errors.count_phrase(len(people), "name")
                yield f"{first} and {second} share {names} of patients: if these are the same people, they leak too."
