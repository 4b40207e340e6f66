"""Rules on series: what is taken, and why not."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.uid import MRImageStorage
from sqlalchemy import insert

import hilum
from hilum.errors import MemoryShortageError, UsageError
from hilum.runtime import model_files, result_codes
from hilum.service import _keeper
from hilum.service.configuration import ModelSection, NodeSettings, RoutingRule
from hilum.service.model_facts import ModelFacts
from hilum.service.node_folder import MODELS
from hilum.service.records import record_database, tables
from hilum.service.records.actor import ANYONE
from hilum.service.records.study_index import StudyIndex
from hilum.service.routing import routing_facts, routing_rules
from hilum.service.routing.routing_facts import SeriesFacts
from hilum.service.routing.routing_rules import StudyAnswers
from hilum.service.web import study_routes
from hilum.service.web.web_node import WebNode
from hilum.service.work import warm_models
from hilum.service.work.warm_models import WarmModels
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model
from written_dicom import write_slice

MODEL = {"m": ModelFacts("m", "hash", "MR")}


def series(name: str = "a", **changes: Any) -> SeriesFacts:
    known = {"instances": 40, "modality": "MR", "spacing_mm": [1.0, 1.0, 1.0], "shape": [64, 64, 40]}
    attributes = {
        "SeriesDescription": "Hippo T1",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        **changes.pop("attributes", {}),
    }
    return SeriesFacts(name, f"1.{name}", **{**known, "attributes": attributes, **changes})


def rule(**changes: Any) -> RoutingRule:
    return RoutingRule(**{"name": "r", "model": "m", **changes})


def taken(
    rules: RoutingRule | list[RoutingRule], *found: SeriesFacts, answers: StudyAnswers | None = None
) -> list[dict[str, str]]:
    rules = rules if isinstance(rules, list) else [rules]
    return [
        dict(inputs) for _, inputs in routing_rules.study_routing(rules, MODEL, found, answers or StudyAnswers()).jobs
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"when": {"Modalty": "MR"}}, "'Modalty' is neither a DICOM keyword nor"),
        ({"unless": {"thickness": 5}}, "'thickness' is neither"),
        ({"series": {"image": {"spacing": (0, 1)}}}, "'spacing' is neither"),
        ({"series": {"T1": {"Modality": "MR"}, "T2": {}}}, "series has T1, T2, and the model's images are image"),
    ],
)
def test_a_rule_that_no_series_can_fulfil_is_refused(changes, words):
    settings = NodeSettings(models={"m": {"path": "m"}}, rules=[rule(**changes)])
    with pytest.raises(UsageError, match=words):
        routing_rules.rules_of(settings, MODEL)


@pytest.mark.parametrize(
    ("waits", "words"),
    [
        ({"inside": {"rule": "r", "label": "Liver"}}, "'Liver', and the labels of 'r' are liver, spleen. Name one"),
        ({"inside": {"rule": "second", "label": "liver"}}, "needs a label map, and the answers of 'second' are none"),
        ({"only_if": {"rule": "r", "finding": "bleed"}}, "needs a probability, and the answers of 'r' state none"),
        ({"only_if": {"rule": "second", "finding": "bled"}}, "'bled', and the findings of 'second' are bleed. Name"),
    ],
)
def test_a_rule_that_waits_for_what_no_answer_has_is_refused_with_the_words_that_there_are(waits, words):
    models = {
        "m": ModelFacts("m", "hash", labels={"liver": 1, "spleen": 2}),
        "n": ModelFacts("n", "other", findings=("bleed",)),
    }
    rules = [rule(), rule(name="second", model="n"), rule(name="third", **waits)]
    settings = NodeSettings(models={name: {"path": name} for name in models}, rules=rules)
    with pytest.raises(UsageError, match=f"^rule 'third': .*{words}"):
        routing_rules.rules_of(settings, models)


def test_rules_that_wait_for_each_other_are_refused():
    models = {"m": ModelFacts("m", "hash", labels={"liver": 1}, findings=("bleed",))}
    rules = [
        rule(name="a", inside={"rule": "b", "label": "liver"}),
        rule(name="b", only_if={"rule": "c", "finding": "bleed"}),
        rule(name="c", inside={"rule": "a", "label": "liver"}),
        rule(name="d", inside={"rule": "a", "label": "liver"}),
    ]
    settings = NodeSettings(models={"m": {"path": "m"}}, rules=rules)
    with pytest.raises(UsageError, match=r"waits for itself: '[abc]' waits for '[abc]' waits for"):
        routing_rules.rules_of(settings, models)
    assert routing_rules.rules_of(settings.model_copy(update={"rules": [*rules[3:], rule(name="a")]}), models)


@pytest.mark.parametrize(
    ("wish", "found", "holds"),
    [
        ("MR", "MR", True),
        ("MR", "CT", False),
        ("~(?i)hippo", "T1 HIPPO sag", True),
        ("~^hippo", "T1 hippo", False),
        ("DERIVED", ["ORIGINAL", "DERIVED"], True),
        (["CT", "MR"], "MR", True),
        (["CT", "~M."], "MR", True),
        ((0.5, 1.5), [0.5, 1.0, 1.5], True),
        ((0.5, 1.5), [0.5, 1.0, 2.0], False),
        ((20, 400), 40, True),
        ((20, 400), "40", False),
        ((0, 1), [], False),
        (False, False, True),
        (1.5, 1.5, True),
        ("MR", None, False),
    ],
)
def test_a_condition_holds_where_a_fact_is_as_the_rule_wishes(wish, found, holds):
    assert routing_rules.fact_matches("Any", wish, found) is holds


@pytest.mark.parametrize(
    ("wish", "other"),
    [
        ({"slices": (20, 400)}, {"shape": [64, 64, 12]}),
        ({"orientation": "LPS"}, {"orientation": "RAS"}),
        ({"field_of_view_mm": (60, 240)}, {"field_of_view_mm": [64.0, 64.0, 12.0]}),
        ({"frames": (2, 50)}, {"frames": None}),
        ({"localizer": False}, {"is_localizer": True}),
        ({"ProtocolName": ["~brain", "head"]}, {"attributes": {"ProtocolName": "knee"}}),
    ],
)
def test_a_rule_asks_for_facts_of_geometry_and_for_attributes_alike(wish, other):
    known = {"orientation": "LPS", "field_of_view_mm": [64.0, 64.0, 80.0], "frames": 20}
    fitting = series("a", attributes={"ProtocolName": "brain 3D"}, **known)
    attributes = {"ProtocolName": "brain 3D", **other.get("attributes", {})}
    assert taken(rule(when=wish), fitting, series("b", **{**known, **other, "attributes": attributes})) == [
        {"image": "a"}
    ]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"spacing_mm": (0.5, 0.8)}, "spacing_mm is 0.81, 0.81, 1, the rule asks for 0.5 to 0.8"),
        ({"slices": (20.0, 400.0)}, "slices is 3, the rule asks for 20 to 400"),
        ({"SeriesDescription": "~hippo"}, "SeriesDescription is absent, the rule asks for ~hippo"),
        ({"Modality": ["CT", "PT"]}, "Modality is MR, the rule asks for CT, PT"),
    ],
)
def test_a_condition_that_fails_is_stated_in_words(when, expected):
    own = series(spacing_mm=[0.81, 0.81, 0.9999999999999929], shape=[8, 8, 3], attributes={"SeriesDescription": None})
    [row] = routing_rules.study_routing([rule(when=when)], MODEL, [own]).rows
    assert next(one.failure for one in row.conditions if not one.holds) == expected


def test_a_localizer_that_nobody_asked_for_is_refused_in_words():
    [row] = routing_rules.study_routing([rule()], MODEL, [series(is_localizer=True)]).rows
    failing = [one.in_words for one in row.conditions if not one.holds]
    assert failing == ["kind of series: the rule asks for no localizer, and it is a localizer"]


def test_a_rule_that_wants_localizers_gets_them():
    scout = series("b", is_localizer=True)
    assert taken(rule(when={"localizer": True}), series(), scout) == [{"image": "b"}]


def test_slices_in_crossing_planes_are_a_localizer_for_rules_too_whatever_their_image_type(tmp_path):
    across = {"x": (0, 1, 0, 0, 0, -1), "y": (1, 0, 0, 0, 0, -1), "z": (1, 0, 0, 0, 1, 0)}
    for axis, orientation in across.items():
        tags = {"orientation": orientation, "sop_class": MRImageStorage, "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}
        write_slice(tmp_path / f"{axis}.dcm", np.ones((4, 4), np.uint16), **tags)
    scout = routing_facts.read_series_facts("b", "1.2.3.2", tmp_path)
    assert scout.is_localizer
    assert scout.value("localizer") is True
    (tmp_path / "x.dcm").unlink()
    (tmp_path / "y.dcm").unlink()
    assert not routing_facts.read_series_facts("b", "1.2.3.2", tmp_path).is_localizer


def test_every_axis_has_to_lie_in_the_range():
    inside = rule(when={"spacing_mm": (0.5, 1.5)})
    assert taken(inside, series()) == [{"image": "a"}]
    assert taken(inside, series(spacing_mm=[1.0, 1.0, 5.0])) == []


def test_unless_keeps_a_series_out_and_the_row_says_why():
    routing = routing_rules.study_routing(
        [rule(unless={"ImageType": "DERIVED"})], MODEL, [series(attributes={"ImageType": ["DERIVED"]})]
    )
    assert routing.jobs == []
    assert [(one.name, one.found) for one in routing.rows[0].conditions if not one.holds] == [
        ("ImageType", ["DERIVED"])
    ]


def test_a_model_sees_no_other_modality_no_localizer_and_nothing_unreadable():
    scout = series("b", is_localizer=True)
    others = [series("c", modality="CT"), series("d", problem="slices are missing"), series("e", modality="SEG")]
    assert taken(rule(), series(), scout, *others) == [{"image": "a"}]


def test_a_model_of_radiographs_takes_those_of_either_kind_of_detector():
    models = {"m": ModelFacts("m", "hash", "DX")}
    rules = routing_rules.rules_of(NodeSettings(), models)
    radiographs = [series("a", modality="CR"), series("b", modality="DX"), series("c", modality="MG")]
    assert [inputs["image"] for _, inputs in routing_rules.study_routing(rules, models, radiographs).jobs] == ["a", "b"]


def test_the_best_series_is_the_thinnest_then_that_with_the_most_slices_then_the_newest():
    thick = series("thick", spacing_mm=[1.0, 1.0, 3.0])
    short = series("short", shape=[64, 64, 30])
    old = series("old", attributes={"SeriesDate": "20200101"})
    new = series("new", attributes={"SeriesDate": "20210101"})
    assert taken(rule(take="best"), thick, new, short, old) == [{"image": "new"}]
    assert len(taken(rule(), thick, new, short, old)) == 4


def test_without_rules_every_series_of_the_models_modality_is_taken():
    rules = routing_rules.rules_of(NodeSettings(), MODEL)
    assert taken(rules, series(), series("b", modality="CT")) == [{"image": "a"}]


def test_a_model_of_several_images_takes_a_series_for_each():
    several = rule(series={"T1": {"SeriesDescription": "~T1"}, "FLAIR": {"SeriesDescription": "~FLAIR"}})
    flair = series("b", attributes={"SeriesDescription": "FLAIR"})
    assert taken(several, series(), flair) == [{"T1": "a", "FLAIR": "b"}]
    assert taken(several, series()) == []


def test_a_study_that_lacks_a_view_is_answered_by_a_model_that_does_without_and_one_of_no_view_is_not():
    model = ModelFacts("m", "hash", "MR", channels=("T1", "FLAIR"), absent=("T1", "FLAIR"))
    wishes = {"T1": {"SeriesDescription": "~T1"}, "FLAIR": {"SeriesDescription": "~FLAIR"}}

    def jobs(*found: SeriesFacts) -> list[dict[str, str]]:
        routing = routing_rules.study_routing([rule(series=wishes)], {"m": model}, found)
        return [dict(inputs) for _, inputs in routing.jobs]

    assert jobs(series()) == [{"T1": "a"}]
    assert jobs(series("b", attributes={"SeriesDescription": "DWI"})) == []
    assert jobs(series("b", attributes={"SeriesDescription": "T1 FLAIR"})) == []


def test_a_model_that_answers_in_places_takes_no_images_that_share_none():
    dense = {"m": ModelFacts("m", "hash", task="segmentation", outputs={"labels": 3, "findings": 1})}
    whole = {"m": ModelFacts("m", "hash", task="classification", outputs={"probabilities": 1, "findings": 1})}
    settings = NodeSettings(models={"m": {"path": "m", "align": "apart"}}, rules=[rule()])
    with pytest.raises(UsageError, match=r"rule 'r': 'apart' .* share no place, and segmentation answers in places"):
        routing_rules.rules_of(settings, dense)
    assert routing_rules.rules_of(settings, whole)


def test_a_rule_that_waits_for_another_follows_its_answer():
    chained = [rule(), rule(name="next", only_if={"rule": "r", "finding": "bleeding", "at_least": 0.4})]
    assert len(taken(chained, series())) == 1
    assert len(taken(chained, series(), answers=StudyAnswers({}, {("r", "bleeding"): 0.3}))) == 1
    assert len(taken(chained, series(), answers=StudyAnswers({}, {("r", "bleeding"): 0.5}))) == 2
    within = [rule(), rule(name="within", inside={"rule": "r", "label": "liver", "margin_mm": 10})]
    assert len(taken(within, series(), answers=StudyAnswers({"r": "refused"}))) == 1
    assert len(taken(within, series(), answers=StudyAnswers({"r": "answered with findings"}))) == 2


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        ("00:00-24:00", (3, 0), 0),
        ("07:00-19:00", (12, 0), 0),
        ("07:00-19:00", (6, 0), 3600),
        ("07:00-19:00", (20, 0), 11 * 3600),
        ("19:00-07:00", (23, 0), 0),
        ("19:00-07:00", (3, 0), 0),
        ("19:00-07:00", (18, 30), 1800),
    ],
)
def test_a_job_waits_until_its_hours(hours, now, expected):
    assert _keeper.seconds_until(hours, datetime(2026, 1, 2, *now)) == expected


def test_the_facts_of_a_model_name_its_labels_and_what_has_a_probability(tmp_path, gated):
    """`gated` tells classes of pictures, the threshold marks voxels."""
    segments = WarmModels({"m": ModelSection(path=threshold_model(tmp_path, LEVEL))}, 8)["m"][1]
    classifies = WarmModels({"m": ModelSection(path=gated.out)}, 8)["m"][1]
    assert (segments.labels, segments.findings) == ({"bright": 1}, ())
    assert (classifies.labels, classifies.findings) == ({}, ("bright", "dark"))


def test_a_file_of_codes_in_the_settings_stands_before_those_of_the_model_and_makes_another_model_of_it(tmp_path):
    path, codes = threshold_model(tmp_path, LEVEL), tmp_path / "codes.csv"
    codes.write_text("name,scheme,value,meaning\nbright,99SITE,1,Bright\n")
    plain = WarmModels({"m": ModelSection(path=path)}, 8)["m"]
    coded = WarmModels({"m": ModelSection(path=path, codes=codes)}, 8)["m"]
    assert result_codes.codes_of_model(coded[0])["bright"].codes[0].scheme == "99SITE"
    assert coded[1].hash != plain[1].hash


@pytest.mark.parametrize(
    ("labels", "codes", "words"),
    [
        ({"bright": 1}, "", r"label 1, 'bright', has no code: its segment goes out as \"Tissue\""),
        ({"1": 1}, "", r"label 1 has neither name nor code: its segment goes out as \"Tissue\""),
        ({"1": 1}, "1,SCT,10200004,Liver", "label 1 has no name$"),
        ({"bright": 1}, "bright,99SITE,1,Bright", "99SITE 1, Bright, which names no structure"),
        ({"bright": 1}, "bright,SCT,85756007,Tissue", "SCT 85756007, Tissue, which names no structure"),
        ({"bright": 1}, "bright,SCT,7771000,Left", "SCT 7771000, Left, which names no structure"),
        ({"liver": 1}, "livre,SCT,10200004,Liver", "'livre', which the model does not state; 'liver' is near"),
        ({"liver": 1}, "", None),
        ({"bright": 1}, "bright,SCT,108369006,Neoplasm", None),
        ({"bright": 1}, "bright,RADLEX,RID58,Liver", None),
        ({"liver": 1}, "short axis,SCT,103340004,Short axis", None),
    ],
)
def test_labels_without_name_or_code_and_codes_that_name_no_structure_are_faults(tmp_path, labels, codes, words):
    path, file = threshold_model(tmp_path, LEVEL), tmp_path / "codes.csv"
    described = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**described, "labels": {"background": 0, **labels}}))
    file.write_text(f"name,scheme,value,meaning\n{codes}\n")
    naming = WarmModels({"m": ModelSection(path=path, codes=file if codes else None)}, 8)["m"][1].naming
    assert (len(naming), words is None or bool(re.search(words, naming[0]))) == (words is not None, True), naming


def test_models_make_room_for_one_that_does_not_fit_on_a_gpu_beside_them(tmp_path, monkeypatch):
    held, warm = list[str](), WarmModels({name: ModelSection(path=tmp_path / name) for name in "abc"}, 8, "cuda:0")

    def loaded(path, device):
        if len(warm._loaded) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        held.append(path.name)
        return SimpleModel()

    monkeypatch.setattr(model_files, "load", loaded)
    monkeypatch.setattr(warm_models, "facts_of_model", lambda name, model: name)
    assert [warm[name][1] for name in "abca"] == [*"abca"]
    assert held == ["a", "b", "c", "a"]
    assert [name for name, _ in warm._loaded] == ["c", "a"]
    monkeypatch.setattr(model_files, "load", raising)
    with pytest.raises(MemoryShortageError):
        warm["b"]


@dataclass
class SimpleModel:
    record: dict = field(default_factory=dict)


def raising(path, device):
    raise MemoryShortageError("takes more memory than there is", str(path), "Free some")


def test_route_says_of_a_folder_which_series_a_model_takes(tmp_path, data):
    model = threshold_model(tmp_path / "model", 100, "MR")
    for name in ("dicomdir_fileset", "mr_hitachi_oblique"):
        shutil.copytree(data / "dicom" / "series" / name, tmp_path / "study" / name)
    pixels = np.ones((4, 4), np.int16)
    for n, depth in enumerate((0, 5, 10, 13, 20)):
        tags = {"SeriesInstanceUID": "1.2.3.20", "StudyInstanceUID": "1.2.3.21"}
        write_slice(tmp_path / "study" / f"uneven{n}.dcm", pixels, position=(0, 0, depth), **tags)
    for n, orientation in enumerate(((1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)) * 4):
        tags = {"SeriesInstanceUID": "1.2.3.30", "StudyInstanceUID": "1.2.3.31", "Modality": "MR"}
        place = {"position": (n, 0, n), "orientation": orientation}
        write_slice(tmp_path / "study" / f"mixed{n}.dcm", pixels, **place, **tags)
    found = hilum.route(tmp_path / "study", model)
    assert found.as_record()["schema"] == "hilum.route"
    kinds = {row.uid: next(c.found for c in row.conditions if c.name == "the model's modality") for row in found.rows}
    assert set(kinds.values()) > {"MR", "CT"}
    assert all(kinds[row.uid] == "MR" for row in found.rows if row.taken)
    refused = [row for row in found.rows if any(c.name == "readable" and not c.holds for c in row.conditions)]
    assert any("not evenly spaced" in str(c.found) for row in refused for c in row.conditions)
    assert "the rule asks for MR, and it is CT" in found.explained
    assert "is not taken: it cannot be read as one volume: has 2 orientations in one series" in str(found)


def test_route_says_of_a_study_in_the_node_what_its_own_page_says(tmp_path, mr, cli):
    """A rule that waits for another's answer is followed once the node has that."""
    models = [threshold_model(tmp_path, level, name=name) for name, level in (("high", LEVEL), ("low", 20.5))]
    config = tmp_path / "node.toml"
    config.write_text("""
        [models]
        high = { path = "high.onnx" }
        low = { path = "low.onnx" }
        [[rules]]
        name = "ball"
        model = "high"
        [[rules]]
        name = "within"
        model = "low"
        inside = { rule = "ball", label = "bright" }
        """)
    rules = [
        {"name": "ball", "model": "high.onnx"},
        {"name": "within", "model": "low.onnx", "inside": {"rule": "ball", "label": "bright"}},
    ]
    node = SmallNode(tmp_path / "node", *models, rules=rules, study={"complete_after_s": 300})
    node.receive(*mr)
    node.work()
    [row] = node.rows(tables.STUDIES)
    with pytest.raises(UsageError, match="not complete yet"):
        hilum.route(row.uid, config=config)
    StudyIndex(node.database).hurry(row.study)
    node.work()
    (tmp_path / "node" / MODELS).write_text(json.dumps({"rows": [asdict(one) for one in node.models.values()]}))
    page = study_routes.route_study(WebNode(node.settings, node.database, node.store), ANYONE, row.uid)
    node.store.close()
    node.database.close()
    record = json.loads(cli("route", row.uid, "--config", config, "--explain", "--json").out)
    assert (record["schema"], record["version"]) == ("hilum.route", 1)
    assert record["rows"] == json.loads(page.model_dump_json())["rows"]
    assert [row["taken"] for row in record["rows"]] == [True, True]
    explained = cli("route", row.uid, "--config", config, "--explain")
    assert (
        "yes  answer of ball: the rule asks for answered with findings, and it is answered with findings"
        in explained.out
    )
    unknown = cli("route", "1.2.3", "--config", config)
    assert (unknown.code, "no such study" in unknown.err) == (2, True)
    # Of a model of which another package was promoted that one's facts count.
    own = {"model": "high", "folder": "new", "manifest": "new", "hash": "new", "mode": "live", "because": "better"}
    facts = asdict(replace(node.models["high.onnx"], name="high", hash="new", modality="CT"))
    database = record_database.open_database(node.settings.database_url)
    with database.write() as connection:
        connection.execute(insert(tables.DEPLOYMENTS).values(**own, facts=facts, asked_at=1.0, began=1.0))
    database.close()
    refused = json.loads(cli("route", row.uid, "--config", config, "--json").out)
    assert not refused["rows"][0]["taken"]


def test_facts_that_were_kept_are_the_facts_that_were_found():
    found = series(frames=12, attributes={"NumberOfFrames": 3})
    row = SimpleNamespace(_mapping={"series": found.series, "uid": found.uid, **found.columns})
    assert SeriesFacts.of_row(row) == found
