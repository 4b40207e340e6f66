"""HTTP from those who mean harm, or whose line is bad: the node answers others, and its memory stays bounded."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.service.objects.object_store import IncomingPart
from hilum.service.records.accounts import Accounts
from hilum.service.web import node_routes, server
from hilum.service.web.access import RequestIdentity
from hilum.service.web.server import RequestGuard
from service.objects_sent import encoded, simulated
from service.receiving import until
from service.web_served import BOUNDARY, RELATED, related, served

HEAD = f"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RELATED['Content-Type']}\r\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with one study."""
    with served(tmp_path_factory.mktemp("web") / "node") as web:
        web.store(encoded(simulated()))
        yield web


def connected(web) -> socket.socket:
    host, port = web.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def received(connection: socket.socket) -> bytes:
    """All that comes until the node closes."""
    data = b""
    try:
        while more := connection.recv(1 << 16):
            data += more
    except ConnectionResetError:
        pass
    return data


def clients_of_this_process() -> set[int]:
    """Ports of those whose connections are open here."""
    return {one.raddr.port for one in psutil.Process().net_connections("tcp") if one.raddr}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.integers(0, 400))
def test_a_changed_body_is_stored_or_refused_and_the_node_lives(node, noise, at):
    body = bytearray(related(encoded(simulated()), encoded(simulated("1.2.3.5"))))
    body[at * 4 : at * 4 + len(noise)] = noise
    assert node.client.post("/dicomweb/studies", content=bytes(body), headers=RELATED).status_code in (
        200,
        202,
        409,
        422,
    )
    assert list((node.settings.folder / "inbox").rglob("*.part")) == []


def test_a_client_that_never_ends_its_head_is_cut_off_and_others_are_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "HEADERS_S", 3600.0)
    with served(tmp_path / "node") as web, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(web))
        assert web.client.get("/health/live").status_code == 200
        monkeypatch.setattr(server, "HEADERS_S", 0.2)
        idle, slow = (stack.enter_context(connected(web)) for _ in range(2))
        slow.sendall(b"GET /health/live HTTP/1.1\r\nHost: local")
        assert [received(connection) for connection in (idle, slow)] == [b"", b""]


def test_a_body_that_stands_still_is_given_up_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "NEXT_BYTES_S", 0.3)
    with served(tmp_path / "node") as web, connected(web) as slow:
        slow.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + related(encoded(simulated()))[:200])
        assert slow.recv(1 << 10).startswith(b"HTTP/1.1 408")
        assert list((web.settings.folder / "inbox").rglob("*.part")) == []


@pytest.mark.whole
def test_more_requests_than_the_node_answers_at_once_are_told_when_to_come_again(tmp_path):
    """Bodies that trickle in hold requests open; what is refused leaves nothing, and all is stored afterwards."""
    objects = [encoded(simulated(f"1.2.3.{number}", study=f"1.2.{number}")) for number in range(4)]
    bodies = [related(one) for one in objects]
    inbox = tmp_path / "node" / "inbox"
    with served(tmp_path / "node", http={"port": 0, "max_requests": 3}) as web, ExitStack() as stack:
        (web.settings.folder / "alive").mkdir()
        (web.settings.folder / "alive" / "keeper").touch()
        slow = [stack.enter_context(connected(web)) for _ in range(3)]
        for connection, body in zip(slow, bodies, strict=False):
            connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:300])
        until(lambda: len(list(inbox.rglob("*.part"))) == 3)
        with ThreadPoolExecutor(16) as people:
            refused = list(people.map(lambda _: httpx.get(f"{web.url}/api/studies", timeout=60), range(16)))
            refused += [web.store(objects[3]), web.store(*objects[3:] * 2, encoded(simulated("1.2.9", side=4096)))]
            healthy = list(people.map(lambda path: httpx.get(f"{web.url}/health/{path}"), ("live", "ready") * 8))
        for answer in refused:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(server.BUSY_RETRY_S))
            assert answer.json()["problem"] == "too many requests at once"
        assert {answer.status_code for answer in healthy} == {200}
        assert len(list(inbox.rglob("*.part"))) == 3
        for connection, body in zip(slow, bodies, strict=False):
            connection.sendall(body[300:])
        assert [connection.recv(12) for connection in slow] == [b"HTTP/1.1 200"] * 3
        until(lambda: web.store(objects[3]).status_code == 200)
        assert [row["instances"] for row in web.client.get("/api/studies").json()["rows"]] == [1, 1, 1, 1]


def test_a_request_that_breaks_off_makes_room_for_another(tmp_path):
    with served(tmp_path / "node", http={"port": 0, "max_requests": 1}) as web:
        with connected(web) as slow:
            slow.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n".encode())
            until(lambda: web.client.get("/api/studies").status_code == 503)
        until(lambda: web.client.get("/api/studies").status_code == 200)


def test_more_connections_than_a_process_has_files_for_are_told_when_to_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    with served(tmp_path / "node") as web, ExitStack() as stack:
        idle = [stack.enter_context(connected(web)) for _ in range(5)]
        until(lambda: web.client.get("/api/studies").headers.get("Retry-After") == str(server.BUSY_RETRY_S))
        assert web.client.get("/health/live").status_code == 200
        idle.pop().close()
        until(lambda: web.client.get("/api/studies").status_code == 200)


@pytest.mark.whole
def test_health_is_answered_while_all_threads_answer_others(tmp_path, monkeypatch):
    may_answer = threading.Event()
    monkeypatch.setattr(node_routes, "_untaken", lambda node: () if may_answer.wait(60) else ("nobody answered",))
    with served(tmp_path / "node") as web, ThreadPoolExecutor(50) as people:
        try:
            asking = [people.submit(httpx.get, f"{web.url}/api/node", timeout=60) for _ in range(50)]
            until(lambda: web.client.get("/health/live").status_code == 200)
            assert httpx.get(f"{web.url}/health/ready", timeout=20).json()["parts"][0]["ok"]
        finally:
            may_answer.set()
        assert {one.result().status_code for one in asking} == {200}


def test_who_does_not_read_an_answer_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "IDLE_S", 0.3)
    with served(tmp_path / "node") as web:
        web.store(encoded(simulated(side=2048)))
        with connected(web) as slow:
            slow.sendall(b"GET /dicomweb/studies/1.2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert slow.recv(12) == b"HTTP/1.1 200"
            until(lambda: slow.getsockname()[1] not in clients_of_this_process())


def test_a_disk_that_fills_up_while_an_object_comes_costs_only_that_object(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        with served(disk / "node") as web:
            refused = web.store(encoded(simulated()), encoded(simulated("1.2.3.5", side=2048)))
            assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
            assert list((web.settings.folder / "inbox").rglob("*.part")) == []
            assert web.store(encoded(simulated()), encoded(simulated("1.2.3.6"))).status_code == 200
            assert web.client.get("/api/studies/1.2").json()["instances"] == 2
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_node_that_stops_while_an_object_is_written_closes_its_file_only_afterwards(tmp_path, monkeypatch):
    writing, go_on, write, errors = threading.Event(), threading.Event(), IncomingPart.write, list[OSError]()

    def slow(part: IncomingPart, data: bytes) -> None:
        writing.set()
        assert go_on.wait(60)
        try:
            write(part, data)
        except OSError as error:
            errors.append(error)

    monkeypatch.setattr(IncomingPart, "write", slow)
    monkeypatch.setattr(server, "DRAIN_S", 0.1)
    with served(tmp_path / "node") as web, connected(web) as client:
        body = related(encoded(simulated()))
        client.sendall(f"{HEAD}Content-Length: {len(body) + 1}\r\n\r\n".encode() + body)
        assert writing.wait(60)
        threading.Timer(0.5, go_on.set).start()  # long after the node has given up the request
    assert errors == []
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.whole
def test_memory_does_not_grow_with_what_is_sent(tmp_path):
    megabyte = bytes(1 << 20)
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    def body():
        yield head
        for _ in range(50):
            yield megabyte
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    with served(tmp_path / "node") as web:
        tracemalloc.start()
        try:
            assert web.client.post("/dicomweb/studies", content=body(), headers=RELATED).status_code == 409
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/api/node HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_of_ours_is_refused(node, raw):
    with connected(node) as odd:
        odd.sendall(raw)
        odd.shutdown(socket.SHUT_WR)
        assert b" 200 " not in received(odd)[:20]
    assert node.client.get("/health/live").status_code == 200


def test_a_head_that_comes_whole_at_once_is_bounded_too(node):
    """Whether the server itself refuses it depends on the pieces in which the network delivers it."""
    answers, identity = [], RequestIdentity(node.settings, Accounts(node.database))

    async def app(scope, receive, send):
        answers.append({"type": "http.response.start", "status": 200})

    async def send(message):
        answers.append(message)

    for length in (1 << 17, 100):
        headers = [(b"host", b"localhost"), (b"x", b"x" * length)]
        scope = {"type": "http", "path": "/health/live", "query_string": b"", "headers": headers}
        asyncio.run(RequestGuard(app, identity, 1)(scope, None, send))
    assert [message["status"] for message in answers if "status" in message] == [431, 200]
