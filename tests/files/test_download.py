"""What comes from the web comes whole, with the right checksum, or nothing of it stays."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hilum.errors import FormatError, HilumError, IntegrityError, ResourceError
from hilum.files.storage import web

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
LIMIT = 10_000_000


class Server(BaseHTTPRequestHandler):
    """Gives CONTENT, as well or as badly as the path says."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced":
            self.send_header("Content-Length", str(10**12 if self.path == "/huge" else len(CONTENT)))
        self.end_headers()
        with suppress(ConnectionError):  # whoever refuses what comes hangs up
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/cut" else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def get(url: str, folder: Path, md5: str = MD5, limit: int = LIMIT, seconds: float = 30.0, **given: float) -> Path:
    web.download(url, folder / "file.bin", md5=md5, limit=limit, seconds=seconds, **given)  # type: ignore[arg-type]
    return folder / "file.bin"


def refused(url: str, folder: Path, **given: object) -> HilumError:
    """The error; and nothing is left of what came."""
    with pytest.raises((ResourceError, IntegrityError)) as caught:
        get(url, folder, **given)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []
    assert caught.value.where == url
    return caught.value


@pytest.mark.parametrize("path", ["/whole", "/unannounced"])
def test_the_right_file_is_there_byte_for_byte(server: str, path: str, tmp_path: Path) -> None:
    assert get(server + path, tmp_path).read_bytes() == CONTENT
    assert [found.name for found in tmp_path.iterdir()] == ["file.bin"]


def test_progress_counts_bytes_up_to_all_of_them(server: str, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    web.download(
        f"{server}/whole",
        tmp_path / "file.bin",
        md5=MD5,
        limit=LIMIT,
        seconds=30,
        progress=lambda *at: progress.append(at),
    )
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert progress[-1] == (len(CONTENT), len(CONTENT))


def test_another_file_than_the_checksum_names_is_refused(server: str, tmp_path: Path) -> None:
    assert MD5 in refused(f"{server}/whole", tmp_path, md5="0" * 32).problem


def test_a_file_that_ends_early_is_refused(server: str, tmp_path: Path) -> None:
    assert f"of {len(CONTENT)} bytes" in refused(f"{server}/cut", tmp_path).problem


@pytest.mark.parametrize("path", ["/huge", "/whole", "/unannounced"])
def test_a_file_larger_than_the_limit_is_refused_whether_announced_or_not(
    server: str, path: str, tmp_path: Path
) -> None:
    assert "more than" in refused(server + path, tmp_path, limit=len(CONTENT) - 1).problem


def test_a_download_that_takes_too_long_is_given_up(server: str, tmp_path: Path) -> None:
    assert "too slowly" in refused(f"{server}/whole", tmp_path, seconds=0.0).problem


def test_a_missing_file_is_told_with_the_servers_words(server: str, tmp_path: Path) -> None:
    assert "404" in refused(f"{server}/missing", tmp_path).problem


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:  # bound and never listening: nobody else can have the port meanwhile
        free.bind(("127.0.0.1", 0))
        assert "cannot be reached" in refused(f"http://127.0.0.1:{free.getsockname()[1]}/", tmp_path).problem


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert "cannot be reached" in refused(url, tmp_path, patience=0.2).problem


def test_only_web_addresses_are_followed(tmp_path: Path) -> None:
    secret = tmp_path.parent / "secret.txt"
    secret.write_bytes(CONTENT)
    assert "is not a web address" in refused(secret.as_uri(), tmp_path).problem


# The archive


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
    return found


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(b"data") if one.isfile() else None)
    return path


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    packed = archive(
        tmp_path / "a.tar", member("set", tarfile.DIRTYPE), member("set/one.txt"), member("set/in/two.txt")
    )
    web.unpack_tar(packed, tmp_path / "out", limit=100)
    assert (tmp_path / "out" / "set" / "one.txt").read_bytes() == b"data"
    assert (tmp_path / "out" / "set" / "in" / "two.txt").read_bytes() == b"data"


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("set/../../evil"),
        member("/tmp/evil"),  # noqa: S108 - never written
        member("set\\..\\..\\evil"),
        member("set/link", tarfile.SYMTYPE, "one.txt"),
        member("set/link", tarfile.LNKTYPE, "set/one.txt"),
        member("set/pipe", tarfile.FIFOTYPE),
        member("set/disk", tarfile.BLKTYPE),
    ],
    ids=lambda one: f"{one.name}-{one.type.decode()}",
)
def test_whatever_leads_out_or_is_no_file_is_refused_and_nothing_is_unpacked(
    bad: tarfile.TarInfo, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    packed = archive(inner / "a.tar", member("set/one.txt"), bad)
    with pytest.raises(FormatError, match="not unpacked"):
        web.unpack_tar(packed, inner / "out", limit=100)
    assert [found.name for found in inner.iterdir()] == ["a.tar"]
    assert [found.name for found in tmp_path.iterdir()] == ["inner"]


def test_an_archive_of_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path / "a.tar", member("one"), member("two"))
    with pytest.raises(FormatError, match="more than 7 bytes"):
        web.unpack_tar(packed, tmp_path / "out", limit=7)
    assert not (tmp_path / "out").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>please log in</html>" * 100)
    with pytest.raises(FormatError, match="cannot be unpacked"):
        web.unpack_tar(tmp_path / "a.tar", tmp_path / "out", limit=100)


def test_an_archive_cut_short_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.tar", *(member(f"{n}.txt") for n in range(9)))
    whole.write_bytes(whole.read_bytes()[: 512 * 5 + 100])
    with pytest.raises(FormatError, match="cannot be unpacked"):
        web.unpack_tar(whole, tmp_path / "out", limit=100)
    assert [found.name for found in tmp_path.iterdir()] == ["a.tar"]
