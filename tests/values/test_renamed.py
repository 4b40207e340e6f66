from __future__ import annotations

from isocenter.values import current_keys, current_name, current_record, current_value

OLD = {"name": "resnet", "size": {"width": 4}, "context": {"age": {}}, "told": {"way": "film", "narrow": 0}}
NEW = {"name": "resnet", "size": {"width": 4}, "context": {"age": {}}, "fusion": {"method": "film", "narrow": 0}}


def test_a_decision_has_its_name_of_today():
    assert current_name("network.told") == "network.context_fusion"
    assert current_name("network.size") == "network.size"


def test_the_record_of_a_model_has_the_keys_of_today():
    old = {"network": OLD, "architectures": [OLD, OLD], "decisions": {"network.told": {"value": "film"}}, "members": 2}
    assert current_record(old) == {
        "network": NEW,
        "architectures": [NEW, NEW],
        "decisions": {"network.context_fusion": {"value": "film"}},
        "members": 2,
    }
    assert current_record(current_record(old)) == current_record(old)


def test_the_settings_of_a_network_have_the_keys_of_today_in_their_order():
    found = current_keys({"width": 4, "way": "late", "frames": 1}, "network.size")
    assert list(found.items()) == [("width", 4), ("method", "late"), ("frames", 1)]


def test_what_is_no_mapping_stays_as_it_is():
    assert current_keys([1, 2], "network.size") == [1, 2]
    assert current_record({"network": {}, "architectures": None}) == {"network": {}, "architectures": None}


def test_the_metric_that_selects_boxes_has_a_name_of_its_own_and_that_of_objects_keeps_its_own():
    assert current_value("ap", "training.selection", "detection") == "ap10_ap50"
    assert current_value("ap", "training.selection", "instances") == "ap"
    assert current_value("ap", "evaluation.primary", "detection") == "ap"
    assert current_value({"way": "late"}, "network.size", "detection") == {"method": "late"}
