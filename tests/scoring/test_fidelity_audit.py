"""What enhanced images lost, by predictors whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.reading import ReadingOptions, dataset_reading
from hilum.scoring import case_scoring, model_verdict
from hilum.scoring.auditing import fidelity_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.enhancement.question import Enhancement
from hilum.transforms import corruptions
from hilum.values import Case, Geometry, Image, Map, Prediction

TASK = Enhancement(channels=("0",), mean={"0": 100.0}, deviation={"0": 50.0})
GRID = Geometry.of_spacing((40, 40, 36), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Answering:
    """A predictor that changes the array of an image."""

    change: Callable[[np.ndarray], np.ndarray]
    task: Enhancement = TASK

    def predict(self, case: Case) -> Prediction:
        image = next(iter(case.images.values()))
        made = self.change(image.data[0].astype(np.float64))
        return Prediction(image.geometry, maps={"enhanced": Map(made)})


def clean(number: int) -> Image:
    away = np.sqrt(sum((grid - 19) ** 2 for grid in np.indices(GRID.shape)))
    texture = ndimage.gaussian_filter(np.random.default_rng(number).normal(size=GRID.shape), 3)
    return Image((1000 * (away < 18) + 900 * texture).clip(0)[None].astype(np.float32), GRID, modality="MR")


def cases_of(damage: dict[str, tuple[float, float]]) -> list[Case]:
    made = []
    for number in range(4):
        name, image = f"p{number}", clean(number)
        damaged = corruptions.sample_damage(damage, seed=0, case=name)(image)
        made.append(Case(name, name, {"image": damaged}, {"target": image}))
    return made


def audit_of(change: Callable, cases: list[Case], **options: object) -> AuditInput:
    predictor = Answering(change)
    rows = [one for case in cases for one in TASK.score([predictor.predict(case)], [case]).to_dict("records")]
    table = case_tables.case_table([{**one, "split": "test"} for one in rows])
    rows = case_scoring.summarise_table(TASK, table, seed=0, patients_known=True)
    scored = ScoredCases(table, rows, task=TASK)
    return AuditInput(scored, predictor, cases, 0, True, options=AuditOptions(**options))


def figures(scored: ScoredCases) -> dict[str, float]:
    return {row.metric: row.estimate.value for row in scored.rows}


def test_spheres_are_put_in_before_the_damage_and_what_changes_nothing_keeps_what_that_left() -> None:
    plain = figures(fidelity_audit.with_recovery(audit_of(lambda image: image, cases_of({"noise": (0.05, 0.05)}))))
    assert plain["recovery"] == pytest.approx(1, abs=1e-3)  # noise adds the same to both
    blurred = figures(fidelity_audit.with_recovery(audit_of(lambda image: image, cases_of({"blur": (1.5, 1.5)}))))
    assert blurred["recovery_3"] < blurred["recovery_5"] < blurred["recovery_8"] < 0.9
    assert blurred["recovery_3"] < 0.35


def test_of_a_real_pair_both_images_get_the_spheres() -> None:
    [case, *_] = cases_of({"noise": (0.05, 0.05)})
    pair = replace(case, images={"image": replace(case.images["image"], facts={})})
    result = fidelity_audit.with_recovery(audit_of(lambda image: image / 2, [pair]))
    assert figures(result)["recovery"] == pytest.approx(0.5, abs=1e-3)


def test_a_network_that_erases_small_structures_is_named_and_psnr_does_not_tell() -> None:
    def erase(image: np.ndarray) -> np.ndarray:
        """An opening: what is brighter than its surroundings and smaller than 4 voxels goes."""
        return np.minimum(image, ndimage.grey_opening(image, size=(4, 4, 4)) + 5)

    cases = cases_of({"blur": (0.3, 0.3)})
    result = fidelity_audit.with_recovery(audit_of(erase, cases))
    stated = figures(result)
    assert stated["psnr"] > 25
    assert stated["recovery_3"] < 0.2
    assert stated["recovery_8"] > 0.6
    assert any("spheres of 3 mm: " in note for note in result.notes)
    assert not any("spheres of 8 mm" in note for note in result.notes)


def test_the_headline_states_beside_psnr_what_was_lost_and_invented() -> None:
    result = fidelity_audit.with_recovery(audit_of(lambda image: image, cases_of({"noise": (0.05, 0.05)})))
    stated = [row.metric for row in model_verdict.headline_rows(result.rows, "psnr", TASK)]
    assert stated == ["psnr", "invented_per_litre", "invented_per_litre_input", "recovery"]
    [outcome] = result.audits
    assert list(outcome.tables) == ["recovery.csv"]
    assert len(outcome.tables["recovery.csv"]) == 4 * 9


def test_results_that_are_no_images_in_the_unit_of_the_input_have_no_recovery() -> None:
    audit = audit_of(lambda image: image, cases_of({"noise": (0.05, 0.05)}))
    foreign = replace(audit, predictor=replace(audit.predictor, task=replace(TASK, unit="target")))
    assert fidelity_audit.with_recovery(foreign) is audit.scored


def test_a_further_model_is_scored_on_inputs_results_and_references(segmented) -> None:
    dataset = dataset_reading.open_dataset(segmented.data, ReadingOptions(labels="1=shell,2=core"))
    cases = [
        replace(
            case,
            images={"image": case.images["image"].with_pixels(0 * case.images["image"].data)},
            references={**case.references, "target": case.images["image"]},
        )
        for case in list(dataset)[:4]
    ]
    targets = {case.id: case.references["target"].data[0] for case in cases}

    class Perfect(Answering):
        def predict(self, case: Case) -> Prediction:
            return Prediction(case.references["target"].geometry, maps={"enhanced": Map(targets[case.id])})

    audit = audit_of(lambda image: image, cases, downstream=segmented.out)
    audit = replace(audit, predictor=Perfect(lambda image: image))
    result = fidelity_audit.with_downstream(audit)
    stated = figures(result)
    assert stated["downstream_dice"] == stated["downstream_dice_reference"]
    assert stated["downstream_dice_input"] != stated["downstream_dice"]
    [outcome] = result.audits
    table = outcome.tables["downstream.csv"]
    assert set(table["image"]) == {"input", "result", "reference"}
    assert "paired difference" in str(outcome.sections[0].blocks[1].columns)


def test_a_further_model_is_refused_where_it_cannot_be_scored(segmented) -> None:
    cases = cases_of({"noise": (0.05, 0.05)})
    with pytest.raises(UsageError, match="no case has references for segmentation"):
        fidelity_audit.load_downstream(segmented.out, TASK, cases)
    with pytest.raises(UsageError, match="answers with no image"):
        fidelity_audit.load_downstream(segmented.out, SimpleNamespace(name="survival", heads={}), cases)


def test_an_image_of_long_voxels_shows_less_of_small_spheres() -> None:
    image = clean(0)
    coarse = replace(image, facts={"scale": (1, 1, 4)})
    case = Case("p0", "p0", {"image": coarse}, {"target": image})
    kept = figures(fidelity_audit.with_recovery(audit_of(lambda image: image + 1, [case])))
    assert kept["recovery_3"] < 0.8 < kept["recovery_8"] < 1.05
