"""`node.toml`: read strictly, with the line of what is wrong."""

from __future__ import annotations

import re
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from hilum.errors import UsageError
from hilum.service import configuration, node_folder, supervisor
from hilum.service.configuration import (
    AuditSection,
    DatabaseSection,
    DicomSection,
    FrontSection,
    HttpSection,
    NodeSection,
    NodeSettings,
    PeerSection,
    QueueSection,
    RoutingRule,
    SiteSection,
    StudySection,
    WatchSection,
)
from hilum.service.node_folder import MODELS
from hilum.service.supervisor import Node

WHOLE = """
[node]
name = "radiology"
folder = "node"
uid_root = "2.25"
[dicom]
ae_title = "HILUM"
port = 11112
[[peers]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
[models.hippocampus]
path = "hippocampus"
[[rules]]
name = "hippocampus on MR"
model = "hippocampus"
when = { Modality = "MR", SeriesDescription = "~(?i)hippo", spacing_mm = [0.5, 1.5], slices = [20, 400] }
unless = { ImageType = "DERIVED" }
send = ["pacs"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_that_says_nothing_gives_a_node_on_loopback(tmp_path):
    settings = configuration.read_settings(written(tmp_path, ""))
    assert (settings.dicom.host, settings.dicom.port, settings.http.port) == ("127.0.0.1", 11112, 8180)
    assert settings.folder == tmp_path / "node"


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path):
    settings = configuration.read_settings(written(tmp_path, WHOLE))
    assert settings.models["hippocampus"].path == tmp_path / "hippocampus"
    assert settings.rules[0].when["spacing_mm"] == (0.5, 1.5)
    assert settings.peers[0].may == ["store", "commit"]


def test_models_are_named_by_their_folders(tmp_path):
    settings = configuration.read_settings(models=[tmp_path / "lung"], folder=tmp_path / "here")
    assert settings.models["lung"].path == tmp_path / "lung"
    assert settings.folder == tmp_path / "here"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("port = 11112", "prot = 11112", 8, r"dicom\.prot: there is no such key, the nearest is port"),
        ('ae_title = "HILUM"', 'ae_titel = "HILUM"', 7, r"dicom\.ae_titel: .* the nearest is ae_title"),
        (
            'path = "hippocampus"',
            'path = "h"\nexplian = "auto"',
            16,
            r"models\.hippocampus\.explian: .* the nearest is explain",
        ),
        ("port = 4242", "port = 4242\ncomit = false", 14, r"peers\.0\.comit: .* the nearest is commit"),
        ("port = 11112", "tls = { prot = 1 }", 8, r"dicom\.tls\.prot: there is no such key"),
        ("[dicom]", "[dicon]", 6, r"dicon: there is no such key, the nearest is dicom"),
        ("[node]", 'file = "x"\n[node]', 2, "file: there is no such key"),
        ("port = 4242", "port = 99999", 13, "peers.0.port"),
        ('uid_root = "2.25"', 'uid_root = "2.025"', 5, "root of UIDs"),
        ('path = "hippocampus"', "", 14, "models.hippocampus.path"),
        ('send = ["pacs"]', 'send = ["archive"]', 21, "not a listed peer"),
        ('model = "hippocampus"\n', 'model = "lung"\n', 18, "does not exist"),
        ('"~(?i)hippo"', '"~(hippo"', 16, "not a regular expression"),
        ('ae_title = "ORTHANC"', 'ae_title = "A TITLE THAT IS TOO LONG"', 11, "AE title"),
        ('send = ["pacs"]', 'send = ["pacs"]\nhours = "7-19"', 22, "hours"),
        ("[dicom]", '[dicom]\nhost = "0.0.0.0"\n[[peer]]', 8, "no such key"),
        ('name = "radiology"', 'name = "radio/logy"', 3, "a name has"),
        ("[dicom]", f'text = "{"x" * 51}"\n[dicom]', 6, "node.text"),
        ("port = 11112", 'host = ""', 8, "0.0.0.0 is every address"),
        ("port = 11112", 'host = "*"', 8, "0.0.0.0 is every address"),
        ("port = 11112", "port = 8180", 1, "two ports are 8180"),
        ("port = 11112", 'sync = "never"', 8, "dicom.sync"),
        ("port = 11112", "idle_s = 0", 8, "dicom.idle_s"),
        ("port = 11112", 'tls = { port = 2762, certificate = "a.pem" }', 8, "dicom.tls.key"),
        ("port = 4242", 'port = 4242\nmay = ["delete"]', 14, "peers.0.may"),
        ("port = 4242", 'port = 4242\ntls = { authorities = "a.pem", key = "k.pem" }', 14, "a key its certificate"),
        ("[models", '[[peers]]\nname = "pacs"\nae_title = "B"\nhost = "b"\nport = 1\n[models', 15, "two peers are"),
        ("[[rules]]", '[[rules]]\nname = "hippocampus on MR"\nmodel = "hippocampus"\n[[rules]]', 20, "two rules are"),
        ('send = ["pacs"]', 'inside = { rule = "liver", label = "liver" }', 21, "not another rule"),
        ('send = ["pacs"]', 'only_if = { rule = "hippocampus on MR", finding = "f" }', 21, "not another rule"),
        ('send = ["pacs"]', 'take = "some"', 21, "rules.0.take"),
        ('send = ["pacs"]', 'priority = "soon"', 21, "rules.0.priority"),
        ("slices = [20, 400]", "slices = [400, 20]", 16, "no number lies between 400 and 20"),
        ("[dicom]", "min_free_gb = -1\n[dicom]", 6, "node.min_free_gb"),
        ("[dicom]", "[queue]\nattempts = 0\n[dicom]", 7, "queue.attempts"),
        ("[dicom]", "[study]\ncomplete_after_s = -1\n[dicom]", 7, "study.complete_after_s"),
        ("[dicom]", '[database]\nurl = "mysql://a@b/c"\n[dicom]', 7, "database.url"),
        ("[dicom]", "[watch]\n[dicom]", 6, "watch.folder"),
        ("[dicom]", '[[safety]]\nthen = "stop"\nmodel = "lung"\n[dicom]', 8, "safety names the model 'lung'"),
        ("[dicom]", "[front]\northanc = 7\n[dicom]", 7, "front.orthanc"),
        ("[dicom]", '[site]\nzone = "Berlin"\n[dicom]', 7, "no time zone"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, old, new, line, words):
    assert WHOLE.count(old) >= 1
    path = written(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(UsageError, match=words) as error:
        configuration.read_settings(path)
    table = re.fullmatch(rf"{re.escape(str(path))}, line {line}(, \[.+\])?", error.value.where)
    assert table is not None and (table[1] or words.startswith(("file", "node.toml"))), error.value.where


def test_every_problem_of_the_file_is_named_at_once_with_its_table(tmp_path):
    changed = WHOLE.replace("port = 11112", "port = -1").replace("port = 4242", 'port = "x"\nsay = 1')
    with pytest.raises(UsageError) as error:
        configuration.read_settings(written(tmp_path, changed))
    for place in (
        "line 8, [dicom]: dicom.port",
        "line 13, [[peers]]: peers.0.port",
        "line 14, [[peers]]: peers.0.say: there is no such key, the nearest is may",
    ):
        assert place in str(error.value)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            "[node]\nmin_free_gb = 100000",
            r"line 2, \[node\]: node.min_free_gb is 100000 GB, and the disk of .* has \d+ GB",
        ),
        (
            "[queue]\nmemory_gb = 1e6",
            r"line 2, \[queue\]: queue.memory_gb is 1e\+06 GB, and the memory of this machine",
        ),
    ],
)
def test_a_limit_that_this_machine_cannot_keep_is_refused_before_anything_is_made(tmp_path, section, words):
    with pytest.raises(UsageError, match=words):
        supervisor.prepare_node(
            configuration.read_settings(written(tmp_path, section), dicom={"port": 0}, http={"port": 0})
        )
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"]


KINDS = (
    NodeSection,
    DicomSection,
    HttpSection,
    QueueSection,
    DatabaseSection,
    StudySection,
    SiteSection,
    WatchSection,
    FrontSection,
    AuditSection,
)


@pytest.mark.parametrize("kind", [*KINDS, PeerSection, RoutingRule])
def test_the_page_on_serve_shows_a_file_with_every_key_and_its_default(kind):
    pages = Path(__file__).parents[2] / "docs" / "how-to"
    assert '--8<-- "docs/how-to/node.toml"' in (pages / "serve.md").read_text(encoding="utf-8")
    stated = tomllib.loads((pages / "node.toml").read_text(encoding="utf-8"))
    NodeSettings.model_validate(stated)  # no key of it is unknown
    others = {PeerSection: "peers", RoutingRule: "rules", NodeSection: "node"}
    table = stated[others.get(kind, kind.__name__.removesuffix("Section").lower())]
    table = table[0] if isinstance(table, list) else table
    chains = {"series", "inside", "only_if", "prior"}  # on the page about routing
    assert table.keys() == kind.model_fields.keys() - chains
    examples = {"tls", "deidentify", "dicomweb", "when", "unless", "send", "url", "syslog"}
    defaults = {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}
    for name in defaults.keys() - chains - examples:
        assert table[name] == (str(defaults[name]) if isinstance(defaults[name], Path) else defaults[name]), name


def test_two_models_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="two models are called lung"):
        configuration.read_settings(models=[tmp_path / "a" / "lung", tmp_path / "b" / "lung"])


@pytest.mark.parametrize("role", ["worker", "web"])
def test_a_part_on_another_machine_needs_the_folder_of_a_keeper(tmp_path, role):
    with pytest.raises(UsageError, match="no node in this folder"):
        supervisor.prepare_node(configuration.read_settings(folder=tmp_path / "node", http={"port": 0}), role)
    assert not (tmp_path / "node").exists()


def test_a_part_on_another_machine_leaves_the_keepers_settings_and_goes_by_them(tmp_path):
    folder = tmp_path / "node"
    own = configuration.read_settings(written(tmp_path, WHOLE), folder=folder, dicom={"port": 0}, http={"port": 0})
    folder.mkdir()
    kept = own.model_dump_json(indent=1)
    node_folder.settings_file(folder, "keeper").write_text(kept)
    (folder / MODELS).write_text("{}")
    other = configuration.read_settings(
        folder=folder, node={"uid_root": "1.2.3"}, http={"port": 0}, queue={"workers": 7}
    )
    for role in ("worker", "web"):
        supervisor.prepare_node(other, role)
    assert node_folder.settings_file(folder, "keeper").read_text() == kept
    shared = node_folder.settings_of_part(other, "rules", "models", "peers")
    assert (shared.node, shared.rules, shared.models, shared.peers) == (own.node, own.rules, own.models, own.peers)
    assert shared.queue.workers == 7


@pytest.mark.whole
def test_a_model_of_a_further_machine_that_does_not_load_is_refused(tmp_path):
    (tmp_path / "node").mkdir()
    for name in ("settings.json", MODELS):
        (tmp_path / "node" / name).write_text("{}")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="broken"):
        supervisor.prepare_node(
            configuration.read_settings(models=[tmp_path / "broken.onnx"], folder=tmp_path / "node"), "worker"
        )


def test_a_folder_of_something_else_is_no_nodes(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else than a node"):
        supervisor.prepare_node(configuration.read_settings(folder=tmp_path, dicom={"port": 0}, http={"port": 0}))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_node_that_others_reach_lists_its_peers(tmp_path):
    with pytest.raises(UsageError, match="no peer is listed"):
        configuration.read_settings(written(tmp_path, '[dicom]\nhost = "0.0.0.0"\n'))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dicom": {"tls": {"port": 0, "certificate": "no.pem", "key": "no.pem"}}}, r"no\.pem: no TLS"),
        ({"http": {"tls": {"certificate": "no.pem", "key": "no.pem"}}}, r"no\.pem: no TLS"),
        (
            {"peers": [{"name": "p", "ae_title": "P", "host": "h", "port": 1, "tls": {"authorities": "no.pem"}}]},
            "no TLS",
        ),
        ({"watch": {"folder": "nowhere"}}, "no such folder to watch"),
    ],
)
def test_files_that_are_not_there_are_named_before_anything_is_made(tmp_path, changes, words):
    ports = {"dicom": {"port": 0}, "http": {"port": 0}}
    sections = {name: {**ports.get(name, {}), **changes.get(name, {})} for name in ports} | {
        name: given for name, given in changes.items() if name not in ports
    }
    with pytest.raises(UsageError, match=words):
        supervisor.prepare_node(configuration.read_settings(written(tmp_path, ""), **sections))
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"]


@pytest.fixture
def certified(tmp_path):
    """The settings of a node on free ports, which speaks TLS on another one."""
    key, certificate = tmp_path / "node.key", tmp_path / "node.pem"
    made = ["openssl", "req", "-x509", "-subj", "/CN=localhost", "-nodes", "-newkey", "rsa:2048"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    def settings(port: int):
        tls = {"port": port, "certificate": str(certificate), "key": str(key)}
        return configuration.read_settings(folder=tmp_path / "node", dicom={"port": 0, "tls": tls}, http={"port": 0})

    return settings


def test_free_ports_are_found_and_named_tls_too_and_nobody_else_is_given_them(certified, monkeypatch):
    monkeypatch.setattr("hilum.service.supervisor._load_models", lambda *given: None)
    node = Node(supervisor.prepare_node(certified(0)))
    plain, secured, http = node.places
    assert plain == f"DICOM {node.dicom}" and secured == f"DICOM over TLS {node.secure_address}" and http == node.http
    ports = [int(re.search(r"127.0.0.1:(\d+)", place)[1]) for place in node.places]
    assert len({0, *ports}) == 4
    for port in ports:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):  # which names it, and knows of connections that have ended
            pass


def test_a_port_for_tls_that_is_in_use_is_refused(certified):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = certified(taken.getsockname()[1])
        with pytest.raises(UsageError, match="cannot be listened on"):
            supervisor.prepare_node(settings)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    with pytest.raises(UsageError, match="not TOML"):
        configuration.read_settings(written(tmp_path, "[dicom\n"))
    with pytest.raises(UsageError, match="cannot be read"):
        configuration.read_settings(tmp_path / "none.toml")


def test_a_password_does_not_stand_in_the_file(tmp_path):
    with pytest.raises(UsageError, match=r"database\.url"):
        configuration.read_settings(written(tmp_path, '[database]\nurl = "postgresql://me:secret@host/node"\n'))
    peer = '[[peers]]\nname = "pacs"\nae_title = "P"\nhost = "127.0.0.1"\nport = 104\ndicomweb = "http://me:secret@host/web"\n'
    with pytest.raises(UsageError, match=r"peers.*dicomweb") as refused:
        configuration.read_settings(written(tmp_path, peer))
    assert "me:secret" not in str(refused.value)
    with pytest.raises(UsageError, match=r"front\.orthanc"):
        configuration.read_settings(written(tmp_path, '[front]\northanc = "http://me:secret@host"\n'))
