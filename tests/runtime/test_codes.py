"""The codes of a model's names: their order, and where they lie."""

from dataclasses import replace

import numpy as np

from hilum.runtime import Model, Preprocessing, result_codes
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Code, Finding, Label
from hilum.values.finding import CodedName

LIVER = Code("SCT", "10200004", "Liver")
GIVEN = {"tumour": CodedName((Code("SCT", "108369006", "Neoplasm"), Code("RADLEX", "RID3957", "tumour")), "codes.csv")}


def model() -> Model:
    given = {"name": "segmentation", "labels": [{"value": 1, "name": "x"}], "loss": "dice+ce", "tolerance": 2.0}
    labels = (Label(1, "liver", code=LIVER), Label(2, "hippocampus"), Label(3, "tumour"), Label(4, "lesion 7b"))
    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),))
    networks = Networks(lambda batch: {"mask": np.zeros(1)}, {"name": "none", "channels": 1})
    return Model(
        replace(task_catalogue.build_task(given), classes=labels),
        prepared,
        Inference((16, 16)),
        networks,
        {"weights_sha256": "ab"},
    )


def test_codes_come_from_a_file_then_the_data_then_the_dictionary_and_else_are_private():
    codes = result_codes.codes_of_model(result_codes.with_codes(model(), GIVEN))
    assert {name: coded.source for name, coded in codes.items() if coded.codes} == {
        "liver": "the data",
        "hippocampus": "DICOM's dictionary",
        "tumour": "codes.csv",
    }
    assert codes["liver"].codes == (LIVER,) and codes["lesion 7b"].codes == ()


def test_a_file_stands_before_the_codes_of_a_model_which_otherwise_stay():
    site = {"liver": CodedName((Code("99SITE", "1", "liver"),), "site.csv")}
    codes = result_codes.codes_of_model(result_codes.with_codes(result_codes.with_codes(model(), GIVEN), site))
    assert (codes["liver"].source, codes["tumour"].source) == ("site.csv", "codes.csv")


def test_findings_have_every_code_of_their_name_and_segments_the_first():
    codes = result_codes.codes_of_model(
        result_codes.with_codes(model(), {**GIVEN, "age": CodedName((LIVER,), "codes.csv", "mo")})
    )
    tumour, age, axis = result_codes.coded_findings(
        [Finding("tumour", 2.0, "ml"), Finding("age", 3.0), Finding("long axis")], codes
    )
    assert [code.scheme for code in tumour.codes] == ["SCT", "RADLEX"] and tumour.unit == "ml"
    assert (age.unit, axis.codes) == ("mo", ())
    assert [label.code and label.code.value for label in result_codes.coded_labels(model().task.labels, codes)] == [
        "10200004",
        "5366008",
        "108369006",
        None,
    ]
