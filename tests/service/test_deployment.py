"""The files of deploy/: a node without root, on a read-only root, that is asked whether it is ready."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

import hilum
from hilum.service import configuration
from service.objects_sent import data_set, encoded, simulated
from service.receiving import until
from service.talking import Talk, object_sent

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = re.search(r"^ARG PYTHON=(\S+)", (DEPLOY / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)[1]


def program(name: str) -> str:
    place = shutil.which(name)
    if place is None:
        pytest.skip(f"{name} is not installed")
    return place


def test_the_service_is_exposed_by_no_more_than_2_of_10():
    command = [program("systemd-analyze"), "security", "--offline=true", "--threshold=20", "hilum.service"]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize("name", ["node.toml", "compose.toml"])
def test_the_settings_are_read_and_those_of_the_service_start(tmp_path, name, monkeypatch):
    settings = configuration.read_settings(DEPLOY / name)
    assert settings.peers and settings.retention is not None and str(settings.folder) == "/var/lib/hilum/node"
    if name == "node.toml":
        sections = {"dicom": {"port": 0}, "http": {"port": 0}, "node": {"min_free_gb": 0}}
        hilum.serve(config=DEPLOY / name, folder=tmp_path / "node", check=True, **sections)
        assert (tmp_path / "node" / "node.sqlite").exists()


def test_no_container_has_rights_of_root_or_a_root_that_can_be_written_to():
    composed = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = composed["services"]
    assert set(services) == {"node", "database", "orthanc"}
    assert not any(services[name]["user"].startswith("0") for name in ("node", "database"))
    for name, one in services.items():
        assert one["read_only"] is True and one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", [])), name
    settings = tomllib.loads((DEPLOY / "compose.toml").read_text(encoding="utf-8"))
    assert settings["database"]["url"].split("@")[1].split("/")[0] in services
    assert settings["peers"][0]["host"] in services
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    last_stage = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert "USER 10001:10001" in last_stage and any(line.startswith("HEALTHCHECK") for line in last_stage)


@pytest.mark.whole
def test_a_node_of_another_user_in_a_read_only_root_takes_an_object_and_is_ready(tmp_path):
    sandbox, state = program("bwrap"), tmp_path / "state"
    state.mkdir()
    config = tmp_path / "node.toml"
    config.write_text('[dicom]\nport = 0\n[http]\nport = 0\n[node]\nmin_free_gb = 0\nfolder = "/var/lib/node"\n')
    mounts = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/var/lib"]  # noqa: S108
    mounts += ["--bind", str(state), "/var/lib/node", "--ro-bind", str(config), "/var/lib/node.toml"]
    code = [str(ROOT), *map(str, {Path(sys.prefix), Path(sys.base_prefix), Path(hilum.__file__).parents[2]})]
    mounts += [
        word for place in (*code, *map(str, sys.path)) if Path(place).is_dir() for word in ("--ro-bind", place, place)
    ]
    user = [
        "--unshare-user",
        "--uid",
        "10001",
        "--gid",
        "10001",
        "--unshare-pid",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ]
    own = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "XDG_CONFIG_HOME": "/var/lib/node/config"}
    own |= {"XDG_CACHE_HOME": "/tmp/cache", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108
    command = [
        sandbox,
        *mounts,
        *user,
        "--",
        sys.executable,
        "-m",
        "hilum",
        "serve",
        "--config",
        "/var/lib/node.toml",
    ]
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = list[str]()
    reading = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)
    reading.start()
    try:
        until(lambda: process.poll() is not None or any(line.startswith("ready:") for line in lines), 120)
        assert process.poll() is None, "".join(lines)
        port, url = re.search(r"DICOM 127\.0\.0\.1:(\d+) HILUM, (\S+)", "".join(lines)).groups()
        ready = httpx.get(f"{url}/health/ready").json()
        assert ready["ready"], ready
        with Talk(int(port)) as talk:
            talk.associate()
            talk.say(object_sent(data_set(encoded(simulated("1.2.3.4"))), "1.2.3.4"))
            assert until(lambda: list((state / "studies").rglob("*.dcm")), 60)
    finally:
        process.terminate()
        process.wait(60)
    assert (state / "config").is_dir()  # the key of pseudonyms


@pytest.mark.whole
def test_the_image_is_built_and_answers_where_an_engine_and_its_base_image_are_at_hand():
    engine = shutil.which("podman") or shutil.which("docker")
    if (
        engine is None
        or subprocess.run([engine, "image", "inspect", BASE], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"no container engine runs here that has {BASE}: the image was not built")
    subprocess.run([engine, "build", "-f", "deploy/Containerfile", "-t", "hilum-test", "."], cwd=ROOT, check=True)
    command = [engine, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "hilum-test", "--help"]  # noqa: S108
    assert "serve" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
