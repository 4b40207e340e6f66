"""Our statistics beside R's: pROC (DeLong), rms (calibration), psych (ICC), MatchIt, stats (McNemar, Wilcoxon, Holm).

    apt-get install r-base-core r-cran-proc r-cran-rms r-cran-psych r-cran-matchit
    python bench/against_r.py --data ../shared/data --record
    apt-get install r-base-core r-cran-pwr r-cran-rpact
    python bench/against_r.py --part sizes --record

The second is of sizes of studies: pwr, rpact. The values that R gives are kept in tests/evaluation/test_against_r.py
and tests/studies/test_sizes_against_r.py, so that the tests do without it. R finds the typical difference of many pairs
by a search that ends at 1e-4, ours is exact. MatchIt gets the distances as a matrix,
of which it takes the nearest: of a vector version 4.5.1 leaves out partners that are nearer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from recorded import record

from hilum.evaluation import calibration
from hilum.evaluation.fairness import shift_tests
from hilum.evaluation.significance import auroc_tests, paired_tests, probability_tests, raters, testing
from hilum.studies import interim_looks
from hilum.verbs import study

# Shrout and Fleiss, Psychol Bull 1979, table 2.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
MANY_P = [0.001, 0.012, 0.03, 0.04, 0.2, 0.7]
FORMS = ("1", "2", "3", "1k", "2k", "3k")
# Of the five numbers of each form, all but the intervals of 2 and 2k: R's hold the truth too seldom.
KEPT = [n for n in range(30) if n // 5 not in (1, 4) or n % 5 not in (1, 2)]

SCRIPT = """
suppressMessages({library(pROC); library(rms); library(psych); library(MatchIt)})
a <- read.csv("asah.csv"); y <- a$positive
area <- function(score, truth) roc(truth, score, quiet = TRUE, direction = "<")
paired <- roc.test(area(a$wfns, y), area(a$s100b, y), method = "delong")
odd <- seq(1, nrow(a), 2); even <- seq(2, nrow(a), 2)
apart <- roc.test(area(a$wfns[odd], y[odd]), area(a$s100b[even], y[even]), method = "delong", paired = FALSE)
fit <- val.prob(a$chance, y, pl = FALSE)
cut <- cut(a$chance, unique(quantile(a$chance, seq(0, 1, 0.1))), include.lowest = TRUE)
seen <- tapply(y, cut, sum); meant <- tapply(a$chance, cut, sum); n <- table(cut)
chi <- sum((seen - meant)^2 / (meant * (1 - meant / n)))
right <- function(called) factor(called == (y == 1), c(FALSE, TRUE))
seen_by <- function(first, second) table(right(first), right(second))
calls <- seen_by(a$wfns >= 4, a$s100b >= 0.3)
many <- mcnemar.test(seen_by(a$age >= 50, a$ndka >= 12), correct = FALSE)
apart_by <- a$other - a$chance
ranks <- wilcox.test(apart_by, exact = FALSE, correct = FALSE, conf.int = TRUE)
few <- wilcox.test(apart_by[1:20], exact = TRUE, conf.int = TRUE)
agreed <- ICC(read.csv("ratings.csv"), lmer = FALSE)$results
p <- c(@P@)
a$male <- as.integer(a$gender == "Male")
likely <- unname(fitted(glm(male ~ age + wfns + s100b, binomial, a, epsilon = 1e-12)))
falling <- sort(likely, TRUE)
nearest <- matchit(male ~ age, a[order(-likely), ], distance = abs(outer(falling, falling, "-")), m.order = "data")
partners <- nearest$match.matrix
out <- list(delong = c(paired$statistic, paired$p.value, paired$conf.int),
  delong_unpaired = c(apart$statistic, apart$p.value),
  slope = fit[["Slope"]], hosmer_lemeshow = c(chi, pchisq(chi, length(n), lower.tail = FALSE)),
  mcnemar = c(many$statistic, many$p.value), mcnemar_exact = binom.test(calls[1, 2], calls[1, 2] + calls[2, 1])$p.value,
  wilcoxon = c(ranks$p.value, ranks$estimate),
  wilcoxon_exact = c(few$p.value, few$estimate), icc = as.vector(t(as.matrix(agreed[, c("ICC", "lower bound",
  "upper bound", "F", "p")]))), holm = p.adjust(p, "holm"), benjamini_hochberg = p.adjust(p, "BH"),
  propensity = likely[1:5], matched = as.integer(partners[order(as.integer(rownames(partners))), 1]))
cat("{", paste(sprintf('"%s": [%s]', names(out), sapply(out, function(x) paste(sprintf("%.12g", x),
  collapse = ", "))), collapse = ", "), "}")
"""


# {what is sized: (our design, its inputs, our figure, the value of R)}. R's sizes are not whole; ours are rounded
# up to whole participants of each arm, or to as many events in each.
SIZES = {
    "means": ("means", {"difference": 0.5, "sd": 1}, "per_arm", "pwr.t.test(d = 0.5, power = 0.8)$n"),
    "means, paired": (
        "means",
        {"difference": 0.5, "sd": 1, "paired": True},
        "n",
        'pwr.t.test(d = 0.5, power = 0.8, type = "paired")$n',
    ),
    "means, power": (
        "means",
        {"difference": 0.5, "sd": 1, "per_arm": 64},
        "power",
        "pwr.t.test(n = 64, d = 0.5)$power",
    ),
    "means, small": (
        "means",
        {"difference": 0.1, "sd": 1, "power": 0.9},
        "n",
        "getSampleSizeMeans(alternative = 0.1, sided = 2, alpha = 0.05, beta = 0.1)$nFixed",
    ),
    "means, non-inferior": (
        "means",
        {"difference": 0, "sd": 1, "margin": 0.3},
        "n",
        "getSampleSizeMeans(alternative = 0, thetaH0 = -0.3, sided = 1, alpha = 0.025, beta = 0.2)$nFixed",
    ),
    "proportions": (
        "proportions",
        {"first": 0.6, "second": 0.5},
        "n",
        "getSampleSizeRates(pi1 = 0.6, pi2 = 0.5, sided = 2, alpha = 0.05, beta = 0.2)$nFixed",
    ),
    "proportions, non-inferior": (
        "proportions",
        {"first": 0.9, "second": 0.9, "margin": 0.05},
        "n",
        "getSampleSizeRates(pi1 = 0.9, pi2 = 0.9, thetaH0 = -0.05, sided = 1, alpha = 0.025, beta = 0.2)$nFixed",
    ),
    "survival": (
        "survival",
        {"hazard_ratio": 0.7},
        "events",
        "getSampleSizeSurvival(hazardRatio = 0.7, pi2 = 0.5, sided = 2, alpha = 0.05, beta = 0.2)$eventsFixed",
    ),
    "means, three looks": (
        "means",
        {"difference": 0.5, "sd": 1, "looks": 3},
        "n",
        'getSampleSizeMeans(looks(3, "asOF"), alternative = 0.5)$maxNumberOfSubjects',
    ),
    "proportions, five looks of Pocock": (
        "proportions",
        {"first": 0.6, "second": 0.5, "looks": 5, "spending": "pocock"},
        "n",
        'getSampleSizeRates(looks(5, "asP"), pi1 = 0.6, pi2 = 0.5)$maxNumberOfSubjects',
    ),
    "survival, three looks": (
        "survival",
        {"hazard_ratio": 0.7, "looks": 3},
        "events",
        'getSampleSizeSurvival(looks(3, "asOF"), hazardRatio = 0.7, pi2 = 0.5)$maxNumberOfEvents',
    ),
}
BOUNDS = {f"{name}, {looks}": (name, looks) for name in ("obrien-fleming", "pocock") for looks in (2, 3, 5)}
SPENDING = {"obrien-fleming": "asOF", "pocock": "asP"}


def sizes_of_r() -> dict[str, list[float]]:
    """What pwr and rpact give for each size, and for the bounds of looks."""
    calls = {name: one[3] for name, one in SIZES.items()}
    calls |= {name: f'looks({looks}, "{SPENDING[kind]}")$criticalValues' for name, (kind, looks) in BOUNDS.items()}
    lines = [
        "suppressMessages({library(pwr); library(rpact)})",
        "looks <- function(k, kind) getDesignGroupSequential(kMax = k, typeOfDesign = kind, alpha = 0.025, sided = 1, "
        "beta = 0.2)",
        *(f'cat(sprintf("%.10g", {call}), "\\n")' for call in calls.values()),
    ]
    run = subprocess.run(["Rscript", "-e", "\n".join(lines)], capture_output=True, text=True, check=True)
    rows = [[float(word) for word in line.split()] for line in run.stdout.splitlines() if line.strip()]
    return dict(zip(calls, rows, strict=True))


def sizes_of_ours() -> dict[str, list[float]]:
    """The same by us."""
    made = {
        name: [float(getattr(study.study_size(design, assignments=inputs), figure))]
        for name, (design, inputs, figure, _) in SIZES.items()
    }
    return made | {
        name: [one.bound for one in interim_looks.equally_spaced_looks(looks, 0.05, kind)]
        for name, (kind, looks) in BOUNDS.items()
    }


def cases(folder: Path) -> pd.DataFrame:
    """The published patients, with two made-up probabilities of each."""
    table = pd.read_csv(folder / "statistics" / "asah.csv")
    odds = -2.6 + 0.7 * table["wfns"] + 1.5 * table["s100b"]
    other = -2.0 + 0.6 * table["wfns"] + 1.1 * table["ndka"].rank() / len(table)
    return table.assign(positive=(table["outcome"] == "Poor").astype(int), chance=_chance(odds), other=_chance(other))


def _chance(odds: pd.Series) -> pd.Series:
    return 1 / (1 + np.exp(-odds))


def ours(table: pd.DataFrame) -> dict[str, list[float]]:
    """The same figures in the order in which the script gives them; DeLong's difference is ours less theirs."""
    truth = table["positive"].to_numpy()
    wfns, s100b, chance, other = (table[name].to_numpy() for name in ("wfns", "s100b", "chance", "other"))
    paired = auroc_tests.delong(s100b, wfns, truth)
    apart = auroc_tests.delong_unpaired(s100b[1::2], wfns[::2], truth[1::2], truth[::2])
    slope = calibration.slope_and_intercept(np.log(chance / (1 - chance)), truth, np.arange(len(truth)))[0]
    fit = probability_tests.hosmer_lemeshow(chance, truth)
    calls = paired_tests.mcnemar_test((wfns >= 4) == truth, (s100b >= 0.3) == truth)
    many = paired_tests.mcnemar_test((table["age"] >= 50) == truth, (table["ndka"] >= 12) == truth)
    ranks, few = paired_tests.wilcoxon_test(chance, other), paired_tests.wilcoxon_test(chance[:20], other[:20])
    male = (table["gender"] == "Male").to_numpy()
    likely = shift_tests.propensity_scores(male, [table[name].to_numpy(float) for name in ("age", "wfns", "s100b")])
    partner = dict(zip(*(each.tolist() for each in shift_tests.match_pairs(male, likely, caliper=None)), strict=True))
    return of_small_tables() | {
        "delong": [paired.statistic, paired.p, paired.low, paired.high],
        "delong_unpaired": [apart.statistic, apart.p],
        "slope": [slope.value],
        "hosmer_lemeshow": [fit.statistic, fit.p],
        "mcnemar": [many.statistic**2, many.p],
        "mcnemar_exact": [calls.p],
        "wilcoxon": [ranks.p, ranks.difference],
        "wilcoxon_exact": [few.p, few.difference],
        "propensity": likely[:5].tolist(),
        "matched": [partner[one] + 1 for one in sorted(partner)],
    }


def of_small_tables() -> dict[str, list[float]]:
    """The figures that need no patients: of Shrout and Fleiss' ratings, and of made-up p."""
    agreed = [raters.icc(RATINGS, form) for form in FORMS]
    numbers = np.array([[one.difference, one.low, one.high, one.statistic, one.p] for one in agreed])
    return {
        "icc": numbers.ravel()[KEPT].tolist(),
        "holm": testing.holm(MANY_P).tolist(),
        "benjamini_hochberg": testing.benjamini_hochberg(MANY_P).tolist(),
    }


def theirs(table: pd.DataFrame) -> dict[str, list[float]]:
    """What R makes of these patients."""
    with tempfile.TemporaryDirectory() as folder:
        table.to_csv(Path(folder) / "asah.csv", index=False)
        pd.DataFrame(RATINGS).to_csv(Path(folder) / "ratings.csv", index=False)
        script = Path(folder) / "script.R"
        script.write_text(SCRIPT.replace("@P@", ", ".join(map(str, MANY_P))), encoding="utf-8")
        run = subprocess.run(["Rscript", str(script)], cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(run.stdout[run.stdout.index("{") :])
    return found | {"icc": [found["icc"][n] for n in KEPT]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", choices=["statistics", "sizes"], default="statistics")
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    if given.part == "sizes":
        compare_sizes(is_recorded=given.record)
        return
    table = cases(given.data)
    own, other = ours(table), theirs(table)
    lines = ["| test | largest difference | R |", "|---|---|---|"]
    for name, values in other.items():
        apart = np.abs(np.array(own[name]) - values).max()
        lines.append(f"| {name} | {apart:.1e} | {', '.join(f'{one:.6g}' for one in values[:5])} |")
    text = "\n".join(lines)
    print(text)
    print(json.dumps(other))
    if given.record:
        record("against_r", "Our statistics beside R's", text, {"r": other, "ours": own})


def compare_sizes(*, is_recorded: bool) -> None:
    own, other = sizes_of_ours(), sizes_of_r()
    lines = ["| study | ours | R |", "|---|---|---|"]
    for name, values in other.items():
        lines.append(f"| {name} | {_listed(own[name])} | {_listed(values)} |")
    text = "\n".join(lines)
    print(text)
    print(json.dumps(other))
    if is_recorded:
        record("sizes_against_r", "Sizes of studies beside R's pwr and rpact", text, {"r": other, "ours": own})


def _listed(values: list[float]) -> str:
    return ", ".join(f"{one:.6g}" for one in values)


if __name__ == "__main__":
    main()
