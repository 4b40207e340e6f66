"""The line that installs an extra: where this installation came from, and never our bare name from an index."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from hilum import installation
from hilum.installation import EXTRAS
from hilum.options.command_index import COMMANDS

ROOT = Path(__file__).parents[1]
# The line of the checkout, which pages show.
OF_THE_CHECKOUT = re.compile(r"pip install --constraint constraints\.txt --editable '\.\[(\w+)\]'")
# What follows the word of an installer on its line; a comment may go on below it.
INSTALLER = re.compile(r"\b(?:pip3?|pipx|uv|conda|mamba) (?:tool )?(?:install|add)\b([^\n`]*(?:\n#[^\n`]*)?)")
OUR_NAME = re.compile(r"(?<![\w./-])hilum(?![\w./-])")


def texts() -> dict[str, str]:
    """{path: text} of code, pages, and what is written beside them."""
    folders = [path for name in ("src", "docs", "deploy", "tests", "bench") for path in (ROOT / name).rglob("*")]
    kinds = (".py", ".md", ".toml", ".ipynb", ".html", ".js", ".jinja", ".yaml", ".service", "")
    files = [*ROOT.glob("*.md"), ROOT / "Makefile", *(path for path in folders if path.suffix in kinds)]
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in files
        if path.is_file() and path != Path(__file__) and "examples" not in path.parts
    }


def names_us(text: str) -> list[str]:
    """Lines that install our bare name, and whatever asks for an extra of it."""
    lines = [line for line in INSTALLER.findall(text) if OUR_NAME.search(line)]
    return [*lines, *re.findall(r"\bhilum\[[a-z]+(?:,[a-z]+)*\]", text)]


def stated_origin(folder: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None) -> None:
    """Let Python find first, in this folder, an installation of ours that came from there."""
    written = folder / "hilum-9.9.9.dist-info"
    written.mkdir()
    needs = "Requires-Dist: numpy>=2\nRequires-Dist: no-such-package>=1.2; extra == 'tune'\n"
    (written / "METADATA").write_text(f"Metadata-Version: 2.4\nName: hilum\nVersion: 9.9.9\n{needs}")
    if origin is not None:
        (written / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(folder))
    installation._requirements.cache_clear()


@pytest.fixture(autouse=True)
def requirements_of_this_installation():
    yield
    installation._requirements.cache_clear()


def test_no_code_page_or_help_installs_our_bare_name_or_an_extra_of_it():
    known = texts()
    assert len(known) > 1000
    helps = {one.words: "\n".join([one.text, *(each.help for each in one.keywords.values())]) for one in COMMANDS}
    assert {where: wrong for where, text in (known | helps).items() if (wrong := names_us(text))} == {}


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("pip install 'hilum[service]'", True),
        ("python3 -m venv x && x/bin/pip install\n# 'hilum[service]'", True),
        ("pip install --upgrade hilum", True),
        ("uv tool install hilum", True),
        ("the extra `hilum[tune]`", True),
        ("pip install --constraint constraints.txt --editable '.[tune]'", False),
        ("pip install /downloads/hilum-0.1.0-py3-none-any.whl", False),
        ("pip install onnxruntime-gpu\nhilum predict run image", False),
    ],
)
def test_a_line_that_asks_an_index_for_our_name_is_found(text, is_wrong):
    assert bool(names_us(text)) is is_wrong


def test_pages_show_the_line_of_the_checkout_for_each_extra_that_they_name():
    pages = {path: text for path, text in texts().items() if path.endswith((".md", ".service"))}
    shown = {extra for text in pages.values() for extra in OF_THE_CHECKOUT.findall(text)}
    assert shown <= {*EXTRAS, "dev", "docs"}
    assert {"service", "wsi"} <= shown


def test_every_extra_says_which_commands_it_opens():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert EXTRAS.keys() == stated.keys() - {"all", "dev", "docs", "bench"}
    commands = {one.words.split()[0] for one in COMMANDS}
    assert [extra for extra, opens in EXTRAS.items() if not commands & set(re.findall(r"\w+", opens))] == []


def test_what_an_extra_needs_is_what_the_project_states():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert installation.needed_packages("tune") == stated["tune"]
    assert {one.partition(">")[0] for one in installation.needed_packages("service")} == {
        one.partition(">")[0].replace("fhir.resources", "fhir-resources") for one in stated["service"]
    }
    assert not set(installation.needed_packages("service")) & set(installation.needed_packages())
    assert any(one.startswith("torch>=") for one in installation.needed_packages())


def test_an_extra_that_names_another_of_ours_asks_no_index_for_us():
    """pyproject.toml has `hilum[compress]` in `dev`; what installers read has the packages in its place."""
    stated = metadata.requires("hilum")
    assert [one for one in stated if one.startswith("hilum")] == []
    assert any(one.startswith("nncf") and "'dev'" in one for one in stated)


def test_in_a_checkout_the_line_is_that_of_the_pages_in_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "my checkout"
    folder.mkdir()
    (folder / "constraints.txt").touch()
    stated_origin(tmp_path, monkeypatch, {"url": folder.as_uri(), "dir_info": {"editable": True}})
    line = installation.install_line("tune")
    assert line.startswith(f"cd '{folder}' && ")
    assert OF_THE_CHECKOUT.findall(line.replace(f"{sys.executable} -m ", "")) == ["tune"]


def test_of_a_copy_of_the_checkout_the_line_makes_a_copy(tmp_path, monkeypatch):
    stated_origin(tmp_path, monkeypatch, {"url": tmp_path.as_uri(), "dir_info": {}})
    assert installation.install_line("tune").endswith("pip install '.[tune]'")


def test_of_a_wheel_the_line_names_its_file(tmp_path, monkeypatch):
    wheel = tmp_path / "hilum-9.9.9-py3-none-any.whl"
    wheel.touch()
    stated_origin(tmp_path, monkeypatch, {"url": wheel.as_uri(), "archive_info": {}})
    assert installation.install_line("tune").endswith(f"pip install '{wheel}[tune]'")


def test_of_an_address_the_line_names_it_and_the_state_that_was_taken(tmp_path, monkeypatch):
    version_control = {"vcs": "git", "commit_id": "0123abcd"}
    stated_origin(tmp_path, monkeypatch, {"url": "https://example.org/hilum.git", "vcs_info": version_control})
    asked = "'hilum[tune] @ git+https://example.org/hilum.git@0123abcd'"
    assert installation.install_line("tune").endswith(f"pip install {asked}")


@pytest.mark.parametrize("origin", [None, {"url": "file:///no/such/hilum-9.9.9-py3-none-any.whl", "archive_info": {}}])
def test_where_the_origin_is_unknown_or_gone_the_line_names_what_the_extra_needs(tmp_path, monkeypatch, origin):
    stated_origin(tmp_path, monkeypatch, origin)
    assert installation.install_line("tune").endswith("pip install 'no-such-package>=1.2'")
    assert installation.missing_packages("tune") == ["no-such-package>=1.2"]


def test_a_package_in_a_version_that_does_not_do_is_missing(tmp_path, monkeypatch):
    stated_origin(tmp_path, monkeypatch, None)
    old = tmp_path / "no_such_package-1.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.4\nName: no-such-package\nVersion: 1.1\n")
    assert installation.missing_packages("tune") == ["no-such-package>=1.2 (1.1 is installed)"]
    assert installation.missing_packages() == []
