"""Good images that a gate refuses for words of their headers, and images of another kind that it refuses for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from claims.law import Law, Random

from hilum.runtime.guard import image_gate, image_observation
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.guard.image_observation import HeaderFacts, Observation

LEVEL, SHOWN, FACTS, HELD_OUT = 0.01, 300, 4, 10
UNLIKE = "of no training case"
GOOD = "the gate, at a level of 1 %: good images refused for words of their headers"
ODD = "the gate, at a level of 1 %: images refused for a word that no training patient had"
# Tells a gate enough to be one; nothing is judged by it.
SAMPLE = np.linspace(0.0, 1.0, 64, dtype=np.float32)[None]
COMPOSED = image_observation.window_composition(SAMPLE.reshape(1, 8, 8))
EMPTY = np.empty((0, 0), np.float32)


def headers(random: Random, shares: list[float], count: int, facts: int) -> list[dict[str, str]]:
    """Words of so many images, each fact sampled alone, of words that have these shares."""
    sampled = random.choice(len(shares), size=(count, facts), p=np.array(shares) / np.sum(shares))
    return [{f"fact {n}": f"word {word}" for n, word in enumerate(row)} for row in sampled.tolist()]


def gate(known: list[dict[str, str]]) -> Guard:
    """Of images with these words, the last of which did not train."""
    seen = [Observation(HeaderFacts(words, {}), SAMPLE, COMPOSED) for words in known]
    made = image_gate.fit_guard(seen[:-HELD_OUT], seen[-HELD_OUT:], LEVEL, exact=True)
    assert made is not None
    return made


def refused(shares: list[float], patients: int, *, facts: int = FACTS, odd: bool = False) -> Callable[[Random], float]:
    """Of new images the share that is refused; odd: whether their first word is one that nobody had."""

    def study(random: Random) -> float:
        sampled = headers(random, shares, patients + SHOWN, facts)
        guard = gate(sampled[:patients])
        shown = [own | {"fact 0": UNLIKE} if odd else own for own in sampled[patients:]]
        return float(np.mean([guard.verdict(Observation(HeaderFacts(own, {}), EMPTY))[0] < LEVEL for own in shown]))

    return study


def tail(words: int) -> list[float]:
    """Shares of words such as scanners and kernels: the n-th is as frequent as 1 / n."""
    return (1 / np.arange(1, words + 1)).tolist()


def rare(patients: int, words: int) -> list[float]:
    """One word for nearly all, and others that one patient has on average."""
    return [1 - words / patients, *[1 / patients] * words]


MOST = 0.013
LAWS = [
    *(
        Law(GOOD, f"{facts} facts, {n} patients, {words} words as frequent as 1 / n", study, high=MOST, draws=300)
        for facts, n, words in ((4, 100, 10), (4, 200, 60), (1, 100, 20))
        for study in [refused(tail(words), n, facts=facts)]
    ),
    *(
        Law(GOOD, f"{facts} facts, {n} patients, {words} rare words", study, high=MOST, draws=500)
        for facts, n, words in ((1, 100, 1), (4, 100, 2), (4, 200, 1))
        for study in [refused(rare(n, words), n, facts=facts)]
    ),
    Law(
        GOOD,
        "4 facts, 100 patients, 60 words as frequent as 1 / n",
        refused(tail(60), 100),
        high=MOST,
        draws=300,
        few=8,
    ),
    Law(GOOD, "4 facts, 100 patients, 1 rare word", refused(rare(100, 1), 100), high=MOST, draws=500),
    Law(GOOD, "4 facts, 60 patients, 1 rare word: too few", refused(rare(60, 1), 60), high=0.0, draws=100),
    Law(ODD, "one word, 100 patients", refused([1.0], 100, odd=True), low=0.99, draws=20, few=1),
    Law(ODD, "two words, 100 patients", refused([0.8, 0.2], 100, odd=True), low=0.99, draws=50),
    Law(ODD, "one word, 60 patients: too few to keep the level", refused([1.0], 60, odd=True), high=0.0, draws=20),
]
