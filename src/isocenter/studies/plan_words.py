"""A plan in the words of its documents, and in the fields of a registry."""

from __future__ import annotations

from typing import Any

from isocenter.errors import listed
from isocenter.studies.protocol import Endpoint, Study

INTENTION = "intention to treat"


def plan_record(study: Study) -> dict[str, Any]:
    """Record of a plan for its documents: the same words in the protocol and with the results."""
    adjusted = [*(study.strata if study.clusters is None else ()), *study.analysis.covariates]
    by = f", adjusted for {listed(adjusted)}" if adjusted else ""
    tested = "participant by participant, with HC3 errors" if study.clusters is None else "of the means of clusters"
    has_times = any(one.event for one in study.endpoints)
    of_times = f" Hazard ratio of times to an event by Cox's model{by}." if has_times else ""
    levels = f"Analysed as allocated, all participants ({INTENTION})"
    planned = study.planned
    return {
        "title": study.title,
        "question": study.question,
        "summary": study.summary or study.question,
        "protocol_version": study.version,
        "ethics": study.ethics,
        "design": f"{'Clusters' if study.clusters else 'Participants'} are allocated to two parallel arms, "
        f"{study.arms[0].share}:{study.arms[1].share}; "
        + ("non-inferiority" if any(one.margin for one in study.primary) else "superiority"),
        "arms": [one.model_dump() for one in study.arms],
        "endpoints": [one.model_dump() for one in study.endpoints],
        "population": study.population.model_dump(),
        "size": None
        if planned is None
        else {k: v for k, v in planned.as_record().items() if k not in ("schema", "version")},
        "strata": {name: list(levels) for name, levels in study.strata.items()} or "none",
        "randomisation": {
            "method": "Clusters at random, balanced within strata"
            if study.clusters
            else "Permuted blocks of random size",
            "strata": listed(study.strata) or "not stratified",
            "concealment": "The list is encrypted; each arm is shown once, when a participant or cluster is enrolled, "
            "and logged. Nobody can see a later one.",
        },
        "analysis": f"Difference of means or proportions, new less control, {tested}{by}; two-sided at "
        f"{study.analysis.alpha:g}.{of_times} Holm's adjustment within several primary and within secondary endpoints.",
        "populations": f"{levels}; per protocol those with {study.analysis.per_protocol} = 1."
        if study.analysis.per_protocol
        else f"{levels}.",
        "missing": f"{study.missing.imputations} imputations by chained equations, pooled by Rubin's rules; "
        "complete cases, best and worst case beside.",
        "subgroups": [f"{name}: the effect in each level, and a test of interaction" for name in study.subgroups]
        or "none are planned",
        "exploratory": "Whatever is not named here is marked as exploratory",
        "looks": "One analysis, at the end"
        if study.looks is None
        else f"{study.looks.number} looks, which spend alpha as {study.looks.spending}; the trial stops for an effect "
        "beyond the look's bound",
    }


def registry_record(study: Study) -> dict[str, Any]:
    """The plan in the fields of ClinicalTrials.gov, and which of those that it asks for are missing.

    https://clinicaltrials.gov/data-api/about-api/study-data-structure
    """
    asked, planned, who = study.registry, study.planned, study.population
    outcomes = {
        is_primary: [_outcome(one) for one in study.endpoints if one.primary == is_primary]
        for is_primary in (True, False)
    }
    groups = [
        {"label": one.name, "type": kind, "description": one.text, "interventionNames": [f"Device: {one.name}"]}
        for one, kind in zip(study.arms, ("ACTIVE_COMPARATOR", "EXPERIMENTAL"), strict=True)
    ]
    care = [
        {"type": "DEVICE", "name": one.name, "description": one.text, "armGroupLabels": [one.name]}
        for one in study.arms
    ]
    section = {
        "identificationModule": {"briefTitle": study.title, "officialTitle": study.title},
        "statusModule": {"startDateStruct": {"date": asked.start}, "completionDateStruct": {"date": asked.completion}},
        "sponsorCollaboratorsModule": {"leadSponsor": {"name": asked.sponsor}},
        "descriptionModule": {"briefSummary": study.summary or study.question},
        "conditionsModule": {"conditions": list(asked.conditions)},
        "designModule": {
            "studyType": "INTERVENTIONAL",
            "phases": ["NA"],
            "designInfo": {
                "allocation": "RANDOMIZED",
                "interventionModel": "PARALLEL",
                "primaryPurpose": asked.purpose,
                "maskingInfo": {"masking": asked.masking},
            },
            "enrollmentInfo": {"count": planned.n if planned is not None else None, "type": "ESTIMATED"},
        },
        "armsInterventionsModule": {"armGroups": groups, "interventions": care},
        "outcomesModule": {"primaryOutcomes": outcomes[True], "secondaryOutcomes": outcomes[False]},
        "eligibilityModule": {
            "eligibilityCriteria": who.criteria,
            "healthyVolunteers": who.healthy,
            "sex": who.sex.upper(),
            "minimumAge": who.minimum_age,
            "maximumAge": who.maximum_age,
        },
        "oversightModule": {"ethics": study.ethics},
    }
    keys = {f"registry.{name}": value for name, value in asked.model_dump().items()}
    keys |= {f"endpoints.{one.name}.time_frame": one.time_frame for one in study.endpoints}
    keys |= {"population.minimum_age": who.minimum_age, "ethics": study.ethics, "size": study.size}
    return {"protocolSection": section, "missing": [name for name, value in keys.items() if not value]}


def _outcome(endpoint: Endpoint) -> dict[str, str]:
    return {"measure": endpoint.name, "description": endpoint.text, "timeFrame": endpoint.time_frame}
