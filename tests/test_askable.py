"""What a user can ask for, as `info` lists it, is what the indexes have: a rewrite of the house leaves it as it is.

python tests/test_askable.py        # writes the list anew, after something was added on purpose
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hilum
from hilum.options.command_index import COMMANDS
from hilum.verbs import askable
from hilum.verbs.askable import INFO_SCHEMA, AskableLists
from hilum.verbs.info import LISTED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def now() -> AskableLists:
    return json.loads(json.dumps(askable.gather_names()))


@pytest.mark.parametrize("what", AskableLists.__annotations__)
def test_what_a_user_can_ask_for_is_what_the_list_has(what, now):
    """Nothing went; what was added on purpose is written into the list."""
    listed = json.loads(LISTED.read_text(encoding="utf-8"))[what]
    assert now[what] == listed, f"what was added to {what} on purpose is listed by: python tests/test_askable.py"


def test_the_list_leaves_nothing_out(now):
    listed = json.loads(LISTED.read_text(encoding="utf-8"))
    assert list(now) == list(listed)
    assert all(len(names) > 1 for names in listed.values())


def test_info_states_the_list_with_the_release_and_what_other_packages_add():
    record = hilum.info().as_record()
    assert record == {
        "schema": INFO_SCHEMA,
        "version": 1,
        "release": hilum.__version__,
        **json.loads(LISTED.read_text(encoding="utf-8")),
        "added": {},
    }
    assert record.keys() == INFO_SCHEMA.declaration.__annotations__.keys()


def test_info_names_what_another_package_adds_without_importing_it(tmp_path, monkeypatch):
    stated = tmp_path / "theirs-1.0.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text("Metadata-Version: 2.4\nName: theirs\nVersion: 1.0\n")
    (stated / "entry_points.txt").write_text("[hilum.networks]\nnew_net = no_such_module:NET\n[others]\na = b:c\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = hilum.info()
    assert found.as_record()["added"] == {"networks": ["new_net"]}
    assert "networks of other packages: new_net" in str(found)


def test_a_command_is_listed_with_its_call_and_the_default_of_each_option():
    verbs = hilum.info().as_record()["verbs"]
    plan = verbs["plan"]
    assert plan["call"] == "hilum.plan"
    assert plan["required"] == ["DATA"]
    assert (plan["options"]["--seed"], plan["options"]["--device"], plan["options"]["--no-cache"]) == (0, "auto", False)
    assert plan["options"]["--json"] is False
    assert verbs["study size"]["call"] == "hilum.study_size"
    assert [words for words, verb in verbs.items() if verb["is_own"]] == [one.words for one in COMMANDS if one.is_own]


def test_the_page_of_flags_has_each_command_and_option_that_info_lists():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    for words, verb in hilum.info().as_record()["verbs"].items():
        assert f"## {words}\n\n{verb['text']}\n" in page
        assert [one for one in verb["options"] if f"| `{one.replace('|', chr(92) + '|')}" not in page] == []


def test_the_words_of_info_name_each_command_and_where_the_rest_stands(cli):
    shown = cli("info")
    assert shown.code == 0
    assert f"Hilum {hilum.__version__}\n{len(COMMANDS)} commands: check, plan, train" in shown.out
    assert "unet" in shown.out
    assert shown.out.rstrip().endswith("hilum info --json. This machine: hilum doctor")


if __name__ == "__main__":
    LISTED.write_text(json.dumps(askable.gather_names(), indent=1) + "\n", encoding="utf-8")
