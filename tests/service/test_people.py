"""Persons and machines at a node: logging in and out, sessions, passwords, tokens; and those who pretend to be one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select, update

from hilum.errors import UsageError
from hilum.service import configuration, supervisor
from hilum.service.records import accounts as records
from hilum.service.records import record_database, tables
from hilum.service.records.accounts import Accounts, WaitError
from hilum.service.web import access, server, web_node
from ports import free_port
from service.people import PASSWORD, logged_in, with_people
from service.web_served import served

FOREIGN = {"Origin": "https://evil.example"}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with an account of each role, and OHIF beside it."""
    build, port = tmp_path_factory.mktemp("build"), free_port()
    for name in ("index.html", "app-config.js"):
        (build / name).write_text(name)
    with with_people(tmp_path_factory.mktemp("people") / "node", ohif={"folder": build, "port": port}) as web:
        web.viewer = f"http://127.0.0.1:{port}"
        yield web


@pytest.fixture
def person(node):
    """A browser of an administrator."""
    browser = logged_in(node, "administrator")
    yield browser
    browser.close()


def changed(node, table, **values):
    with node.database.write() as connection:
        connection.execute(update(table).values(values))


def test_a_session_is_a_cookie_that_no_script_and_no_other_address_gets(node):
    browser = httpx.Client(base_url=node.url)
    answer = browser.post("/api/login", json={"account": "viewer", "password": PASSWORD})
    assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in answer.headers["set-cookie"].split(";")}
    assert browser.get("/api/me").json() == answer.json()
    assert answer.json()["account"] == answer.json()["role"] == "viewer"
    secret = browser.cookies["hilum"]
    with node.database.read() as connection:
        kept = connection.execute(select(tables.SESSIONS.c.session)).scalars().all()
    assert secret not in kept and answer.json()["csrf"] not in kept


def test_under_tls_the_cookie_goes_by_tls_alone_and_no_other_address_can_set_it(tmp_path):
    with with_people(tmp_path / "node", http={"port": 0, "url": "https://node.example"}) as web:
        given = {"account": "viewer", "password": PASSWORD}
        answer = httpx.post(f"{web.url}/api/login", json=given, headers={"Origin": "https://node.example"})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-hilum=") and "Secure" in cookie and "Path=/;" in cookie
        assert "Domain" not in cookie


def test_a_session_ends_by_logging_out_and_after_half_an_hour_without_use(node, person):
    secret = person.cookies["hilum"]
    assert person.post("/api/logout").status_code == 204
    assert httpx.get(f"{node.url}/api/me", cookies={"hilum": secret}).status_code == 401
    now, viewer = node.database.now(), logged_in(node, "viewer")
    for headers, is_renewed in (({"X-Background": "1"}, False), ({}, True)):
        changed(node, tables.SESSIONS, used_at=now - 29 * 60)
        assert viewer.get("/api/me", headers=headers).status_code == 200
        with node.database.read() as connection:
            last = max(connection.execute(select(tables.SESSIONS.c.used_at)).scalars())
        assert (last > now - 60) == is_renewed
    changed(node, tables.SESSIONS, used_at=now - 31 * 60)
    assert viewer.get("/api/me").status_code == 401


def test_who_logs_in_gets_another_session_than_a_stranger_may_have_given_the_browser(node):
    for planted in (logged_in(node, "viewer").cookies["hilum"], "chosen"):
        given = {"account": "administrator", "password": PASSWORD}
        answer = httpx.post(f"{node.url}/api/login", json=given, cookies={"hilum": planted})
        assert answer.status_code == 200 and answer.cookies["hilum"] != planted
        assert httpx.get(f"{node.url}/api/me", cookies={"hilum": planted}).status_code == 401


def test_a_change_needs_the_word_of_the_page_and_comes_from_this_address(node, person):
    word = person.headers.pop("X-CSRF-Token")
    new = {"account": "forged", "role": "administrator"}
    for headers in ({}, {"X-CSRF-Token": word[:-1]}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": word, **FOREIGN}):
        assert person.post("/api/accounts", json=new, headers=headers).status_code == 403
    # A page from elsewhere may neither read, nor keep a stream open, nor log somebody in.
    assert person.get("/api/worklist", headers=FOREIGN).status_code == 403
    assert person.get("/api/worklist", headers={"Origin": "null"}).status_code == 403
    other = {"account": "viewer", "password": PASSWORD}
    assert httpx.post(f"{node.url}/api/login", json=other, headers=FOREIGN).status_code == 403
    assert "forged" not in person.get("/api/accounts").text


def test_after_five_wrong_passwords_each_further_one_waits_twice_as_long(node):
    def tried(account: str, password: str) -> httpx.Response:
        return httpx.post(f"{node.url}/api/login", json={"account": account, "password": password}, timeout=60)

    for account in ("radiologist", "nobody"):  # whether there is one is not told
        with ThreadPoolExecutor(8) as many:
            answers = list(many.map(tried, [account] * 8, [f"wrong {number}" for number in range(8)]))
        assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 3
        refused = tried(account, PASSWORD)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert {answer.json()["problem"] for answer in answers if answer.status_code == 401} == {
            "account or password is wrong"
        }
    assert tried("viewer", PASSWORD).status_code == 200
    time.sleep(1.1)
    assert tried("radiologist", PASSWORD).status_code == 200


def test_log_ins_that_wait_keep_no_other_request_waiting_and_an_address_has_few_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(web_node, "WINDOW_S", 1e7)  # a minute may end in the midst of a test

    def tried(name: str) -> httpx.Response:
        return httpx.post(f"{web.url}/api/login", json={"account": name, "password": "wrong"}, timeout=60)

    with with_people(tmp_path / "node") as web:
        radiologist = logged_in(web, "radiologist")
        with ThreadPoolExecutor(60) as strangers:
            with records.HASHED_AT_ONCE, records.HASHED_AT_ONCE:  # no log-in comes to its end
                asked = [strangers.submit(tried, f"nobody{number}") for number in range(60)]
                # Without a queue of their own these would hold each of the forty threads.
                while sum(one.done() for one in asked) < 40:
                    time.sleep(0.01)
                assert {one.result().status_code for one in asked if one.done()} == {503}
                assert radiologist.get("/api/studies").status_code == 200
            answers = [one.result() for one in asked]
        assert sorted({one.status_code for one in answers}) == [401, 503]
        assert sum(one.status_code == 401 for one in answers) == 20
        later = [tried(f"stranger{number}") for number in range(11)]
        assert [one.status_code for one in later] == [401] * 10 + [429]
        assert int(later[-1].headers["Retry-After"]) > 0
        assert radiologist.get("/api/me").json()["account"] == "radiologist"


def test_waiting_for_a_password_has_an_end_and_what_was_wrong_is_forgotten(database, monkeypatch):
    monkeypatch.setattr(records, "HASHER", type("Fast", (), {"hash": str, "verify": lambda *_: True}))
    people = Accounts(database)
    for count, wait in ((5, 1), (6, 2), (9, 16), (50, 60)):
        with database.write() as connection:
            connection.execute(tables.FAILURES.delete())
            attempt = records._digest("a\0here")
            values = {"attempt": attempt, "count": count, "at": record_database.DatabaseClock()}
            connection.execute(tables.FAILURES.insert().values(values))
        with pytest.raises(WaitError) as error:
            people.is_password("a", "b", "here")
        assert error.value.wait == pytest.approx(wait, abs=1)
    with database.write() as connection:
        connection.execute(update(tables.FAILURES).values(at=record_database.DatabaseClock() - 3601))
    assert not people.is_password("a", "b", "here")


def test_a_machine_asks_by_a_token_that_is_stated_once_and_ends(node, person):
    made = person.post("/api/tokens", json={"name": "router", "last_day": "2100-01-01"}).json()
    secret = made.pop("secret")
    assert "secret" not in str(person.get("/api/tokens").json()).replace("'secret': None", "")
    with node.database.read() as connection:
        assert secret not in str(connection.execute(select(tables.TOKENS)).all())

    def asked(given: str) -> int:
        return httpx.get(f"{node.url}/api/me", headers={"Authorization": f"Bearer {given}"}).status_code

    def forged() -> list[int]:
        return [asked(secret[:-1] + ("A" if secret[-1] != "A" else "B")), asked(made["token"]), asked("x")]

    me = httpx.get(f"{node.url}/api/me", headers={"Authorization": f"Bearer {secret}"}).json()
    assert me == {"account": "token router", "role": "service", "csrf": ""}
    assert forged() == [401] * 3
    assert httpx.get(f"{node.viewer}/", auth=("", secret)).status_code == 200
    again = person.post("/api/tokens", json={"name": "router", "last_day": "2100-01-01"})
    assert (again.status_code, again.json()["problem"]) == (409, "there is a token of this name")
    assert person.post("/api/tokens", json={"name": "old", "last_day": "2020-01-01"}).status_code == 422
    changed(node, tables.TOKENS, ends_at=node.database.now() - 1)
    assert asked(secret) == 401
    changed(node, tables.TOKENS, ends_at=node.database.now() + 60)
    assert asked(secret) == 200
    assert person.delete(f"/api/tokens/{made['token']}").status_code == 204
    assert asked(secret) == 401


def test_an_account_is_made_with_a_password_that_is_stated_once(node, person):
    made = person.post("/api/accounts", json={"account": "anna@ward", "role": "viewer"}).json()
    assert "password" not in str(person.get("/api/accounts").json()).replace("'password': None", "")
    anna = logged_in(node, "anna@ward", made["password"])
    wrong = anna.put("/api/me/password", json={"old": "not mine", "new": "my own long password"})
    short = anna.put("/api/me/password", json={"old": made["password"], "new": "short"})
    assert (wrong.status_code, short.status_code) == (401, 422) and "12 to 256" in short.json()["remedy"]
    before = anna.cookies["hilum"]
    own = anna.put("/api/me/password", json={"old": made["password"], "new": "my own long password"})
    assert own.status_code == 200 and anna.cookies["hilum"] != before
    person.put("/api/accounts/anna@ward", json={"role": "radiologist"})
    assert anna.get("/api/me").status_code == 401
    anna = logged_in(node, "anna@ward", "my own long password")
    assert person.put("/api/accounts/anna@ward", json={"ended": True}).json()["ended"]
    assert anna.get("/api/me").status_code == 401
    again = httpx.post(f"{node.url}/api/login", json={"account": "anna@ward", "password": "my own long password"})
    assert again.status_code == 401
    assert person.post("/api/accounts", json={"account": "anna@ward", "role": "viewer"}).status_code == 409


@pytest.mark.parametrize(("name", "status"), [("node", 409), ("token router", 409), (" anna", 422), ("a\nb", 422)])
def test_no_person_is_called_as_the_node_calls_itself_and_its_machines(person, name, status):
    assert person.post("/api/accounts", json={"account": name, "role": "viewer"}).status_code == status


@pytest.mark.parametrize("change", [{"ended": True}, {"role": "viewer"}])
def test_the_last_administrator_stays(node, person, change):
    refused = person.put("/api/accounts/administrator", json=change)
    assert (refused.status_code, refused.json()["problem"]) == (409, "nobody else is administrator")


def test_ohif_is_for_those_who_have_logged_in_at_the_node(node, person):
    secret = {"hilum": person.cookies["hilum"]}
    assert httpx.get(f"{node.viewer}/", cookies=secret).text == "index.html"
    assert httpx.get(f"{node.viewer}/dicomweb/studies", cookies=secret).status_code in (200, 204)
    assert httpx.post(f"{node.viewer}/dicomweb/studies", cookies=secret).status_code == 403
    assert httpx.get(f"{node.viewer}/dicomweb/studies").status_code == 401
    led = httpx.get(f"{node.viewer}/viewer?StudyInstanceUIDs=1.2", headers={"Accept": "text/html"})
    assert (led.status_code, urlsplit(led.headers["location"]).path) == (303, "/login")


def test_a_person_without_session_is_led_to_the_login_and_back_to_a_page_of_this_node(node):
    led = httpx.get(f"{node.url}//evil.example/study?a=b&c", headers={"Accept": "text/html"})
    assert led.headers["location"] == "/login?next=%2F%2Fevil.example%2Fstudy%3Fa%3Db%26c"
    assert access.own_path("//evil.example/study") == "/"
    assert access.own_path("/study/1.2?a=b#c") == "/study/1.2?a=b#c"


@example("/\\evil.example")
@example("/\t/evil.example")
@example("https://evil.example/")
@example("///evil.example")
@example("/%2f/evil.example\r\nSet-Cookie: a=b")
@given(st.text(alphabet="/\\ab.:@?#%\t\r\n ", max_size=12) | st.text(max_size=20))
def test_no_address_leads_out_of_the_node(text):
    path = access.own_path(text)
    assert path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and "\\" not in path


def test_what_is_sent_to_the_api_is_bounded(node, monkeypatch):
    monkeypatch.setattr(server, "MOST_BODY_BYTES", 1000)
    large = b'{"account": "viewer", "password": "%s"}' % (b"x" * 2000)
    head = {"Content-Type": "application/json"}
    assert httpx.post(f"{node.url}/api/login", content=large, headers=head).status_code == 413
    assert httpx.post(f"{node.url}/api/login", content=iter([large]), headers=head).status_code in (400, 408)


def test_without_an_account_this_machine_has_all_rights_and_gives_none_to_others(tmp_path):
    with served(tmp_path / "node") as web:
        assert web.client.get("/api/login").json() == {"needed": False, "password": False, "openid": None}
        assert web.client.get("/api/me").json() == {"account": "", "role": "administrator", "csrf": ""}
        token = {"name": "router", "last_day": "2100-01-01"}
        for path, new in (("accounts", {"account": "a", "role": "viewer"}), ("tokens", token)):
            refused = web.client.post(f"/api/{path}", json=new)
            assert (refused.status_code, refused.json()["problem"]) == (409, "the node has no account yet")
        Accounts(web.database).first(PASSWORD)
        time.sleep(records.ASKED_AGAIN_S)
        assert web.client.get("/api/me").status_code == 401


def test_the_first_account_comes_from_the_environment_and_lets_others_reach_the_node(tmp_path, monkeypatch):
    monkeypatch.setattr("hilum.service.supervisor._load_models", lambda *_: None)  # it has none
    settings = configuration.read_settings(folder=tmp_path, http={"host": "0.0.0.0", "port": 0}, dicom={"port": 0})  # noqa: S104
    monkeypatch.setenv("HILUM_ADMIN_PASSWORD", "short")
    with pytest.raises(UsageError, match="HILUM_ADMIN_PASSWORD: the password has 5 letters"):
        supervisor.prepare_node(settings)
    monkeypatch.setenv("HILUM_ADMIN_PASSWORD", PASSWORD)
    supervisor.prepare_node(settings)
    monkeypatch.setenv("HILUM_ADMIN_PASSWORD", "another long password")  # too late: there is an account
    supervisor.prepare_node(settings)
    monkeypatch.delenv("HILUM_ADMIN_PASSWORD")
    for listener in server.web_listeners(settings):
        listener.close()
    with served(tmp_path) as web:
        assert logged_in(web, "administrator").get("/api/me").json()["role"] == "administrator"


def test_of_passwords_nothing_is_kept_but_a_slow_hash(database):
    people = Accounts(database)
    people.first(PASSWORD)
    [row] = people.rows()
    assert row.password.startswith("$argon2id$") and PASSWORD not in str(row)
    assert people.is_password("administrator", PASSWORD, "here")
    assert not people.is_password("administrator", PASSWORD + " ", "here")
