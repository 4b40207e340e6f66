"""Logging in with an OpenID provider, and providers that are away, wrong, or of another time."""

from __future__ import annotations

import re

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import delete

from hilum.errors import UsageError
from hilum.service import configuration
from hilum.service.records import tables
from ports import free_port
from service.people import PASSWORD, logged_in, with_people
from service.vouching import CLIENT, SECRET, SmallProvider, agree, certified_provider, small_provider

ROLES = {"radiologist": "rad", "administrator": "it"}


def oidc(issuer: str, **more) -> dict[str, object]:
    return {"issuer": issuer, "client_id": CLIENT, "roles": ROLES, **more}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A node whose persons log in with a small provider."""
    with pytest.MonkeyPatch.context() as patch, small_provider() as provider:
        patch.setenv("HILUM_OIDC_SECRET", SECRET)
        with with_people(tmp_path_factory.mktemp("openid") / "node", oidc=oidc(provider.issuer)) as web:
            yield web, provider


@pytest.fixture
def node(shared):
    """The node, without a person whom the provider vouches for."""
    web, _ = shared
    with web.database.write() as connection:
        connection.execute(delete(tables.SESSIONS))
        connection.execute(delete(tables.ACCOUNTS).where(tables.ACCOUNTS.c.subject.is_not(None)))
    return web


@pytest.fixture
def provider(shared):
    """The provider, which vouches for a radiologist called anna."""
    kept = shared[1]
    fresh = SmallProvider(kept.issuer)
    kept.__dict__.update({**fresh.__dict__, "signing": kept.signing})
    return kept


def led_back(node, provider, browser: httpx.Client, path: str = "/study/1.2") -> httpx.Response:
    """What the node answers to a browser that comes back from the provider."""
    begun = browser.get("/api/login/openid", params={"next": path})
    assert begun.status_code == 303, begun.text
    return browser.get(f"/api/login/openid/answer?{provider.authorise(begun.headers['location'])}")


@pytest.mark.whole
def test_the_certified_provider_vouches_for_a_person_who_then_has_the_role_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_OIDC_SECRET", SECRET)
    port = free_port()
    with certified_provider(tmp_path, f"http://127.0.0.1:{port}/api/login/openid/answer") as issuer:
        settings = {"oidc": oidc(issuer, scopes=["profile", "groups"]), "http": {"port": port}}
        with with_people(tmp_path / "node", **settings) as web:
            for person, status in (("anna", 200), ("guest", 403)):
                browser = httpx.Client(base_url=web.url)
                answer = agree(browser, browser.get("/api/login/openid"), person)
                assert browser.get(answer.headers["location"]).status_code == status
                me = browser.get("/api/me")
                assert (me.status_code, me.json().get("role")) == (
                    (200, "radiologist") if status == 200 else (401, None)
                )


def test_a_person_of_the_provider_logs_in_and_goes_on_where_it_wanted(node, provider):
    browser = httpx.Client(base_url=node.url)
    assert browser.get("/api/login").json() == {"needed": True, "password": True, "openid": "/api/login/openid"}
    page = led_back(node, provider, browser)
    assert page.status_code == 200 and 'content="0; url=/study/1.2"' in page.text
    assert "SameSite=strict" in page.headers["set-cookie"]
    me = browser.get("/api/me").json()
    assert (me["account"], me["role"]) == ("anna", "radiologist")
    provider.person |= {"groups": ["rad", "it"]}  # of several roles the first of the list
    led_back(node, provider, browser)
    assert browser.get("/api/me").json()["role"] == "administrator"
    again = browser.put("/api/accounts/anna", json={"new_password": True}, headers={"X-CSRF-Token": me["csrf"]})
    assert again.status_code == 403  # the word of a session that has ended


@pytest.mark.parametrize("path", ["//evil.example/", "https://evil.example/", "/\\evil.example", '/"><script>'])
def test_no_login_leads_to_another_address(node, provider, path):
    page = led_back(node, provider, httpx.Client(base_url=node.url), path)
    [to] = re.findall(r'url=([^"]*)"', page.text)
    assert to in ("/", "/&quot;&gt;&lt;script&gt;")
    assert "evil" not in page.text and "<script" not in page.text


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ({"aud": "another client"}, {}),
        ({"aud": [CLIENT, "another client"], "azp": "another client"}, {}),
        ({"iss": "https://evil.example"}, {}),
        ({"nonce": "of another login"}, {}),
        ({"nonce": None}, {}),
        ({"sub": "18"}, {}),
        ({"exp": None}, {}),
        ({}, {"kid": "unknown"}),
    ],
)
def test_a_token_that_was_not_made_for_this_login_is_refused(node, provider, token, header):
    provider.token, provider.header = token, header
    browser = httpx.Client(base_url=node.url)
    page = led_back(node, provider, browser)
    assert page.status_code == 403 and "set-cookie" not in page.headers
    assert browser.get("/api/me").status_code == 401


def test_a_provider_that_has_turned_its_keys_is_asked_for_the_new_ones(node, provider):
    assert led_back(node, provider, httpx.Client(base_url=node.url)).status_code == 200
    provider.turn_keys()
    assert led_back(node, provider, httpx.Client(base_url=node.url)).status_code == 200
    honest, provider.signing = provider.signing, ECKey.generate_key("P-256", {"kid": provider.signing.kid})
    provider.published = honest  # whoever signs has another key of the same name
    assert led_back(node, provider, httpx.Client(base_url=node.url)).status_code == 403
    provider.signing = honest


@pytest.mark.parametrize("minutes", [5, -5])
def test_a_clock_that_is_five_minutes_off_is_named(node, provider, minutes):
    provider.clock = 60 * minutes
    page = led_back(node, provider, httpx.Client(base_url=node.url))
    assert page.status_code == 403 and "set both clocks by NTP" in page.text
    assert re.search(rf"(299|300|301) s {'ahead of' if minutes > 0 else 'behind'} ours", page.text)


def test_a_clock_that_is_a_minute_off_hinders_nobody(node, provider):
    for provider.clock in (60, -60):
        assert led_back(node, provider, httpx.Client(base_url=node.url)).status_code == 200


def test_a_login_that_was_begun_elsewhere_or_refused_is_not_taken(node, provider):
    mine, other = (httpx.Client(base_url=node.url) for _ in range(2))
    begun = mine.get("/api/login/openid")
    query = provider.authorise(begun.headers["location"])
    assert other.get(f"/api/login/openid/answer?{query}").status_code == 403  # a stranger's answer in my browser
    assert mine.get("/api/login/openid/answer?error=access_denied").status_code == 403
    state = query.partition("state=")[2]
    assert mine.get(f"/api/login/openid/answer?code=guessed&state={state}").status_code == 403
    assert mine.get(f"/api/login/openid/answer?{query}").status_code == 200
    assert mine.get(f"/api/login/openid/answer?{query}").status_code == 403  # a code is taken once


def test_whom_the_provider_gives_no_role_or_anothers_name_has_no_way_in(node, provider):
    provider.person |= {"groups": ["guests"]}
    assert "gives you no role here" in led_back(node, provider, httpx.Client(base_url=node.url)).text
    provider.person |= {"groups": ["it"], "preferred_username": "administrator"}
    taken = led_back(node, provider, httpx.Client(base_url=node.url))
    assert taken.status_code == 403 and "another account has this name" in taken.text
    provider.person |= {"preferred_username": "anna"}
    assert led_back(node, provider, httpx.Client(base_url=node.url)).status_code == 200
    logged_in(node, "administrator").put("/api/accounts/anna", json={"ended": True})
    assert "this account has ended" in led_back(node, provider, httpx.Client(base_url=node.url)).text
    by_password = httpx.post(f"{node.url}/api/login", json={"account": "anna", "password": ""})
    assert by_password.status_code == 401


def test_a_provider_that_is_away_is_named_and_passwords_still_open_the_node(tmp_path):
    with with_people(tmp_path / "node", oidc=oidc(f"http://127.0.0.1:{free_port()}")) as web:
        page = httpx.get(f"{web.url}/api/login/openid")
        assert page.status_code == 503 and "it does not answer" in page.text
        given = {"account": "viewer", "password": PASSWORD}
        assert httpx.post(f"{web.url}/api/login", json=given).status_code == 200


def test_a_provider_whose_answers_can_be_changed_on_the_way_is_refused():
    with pytest.raises(UsageError, match="oidc: the issuer is reached without TLS"):
        configuration.read_settings(oidc=oidc("http://idp.example"))
    assert configuration.read_settings(oidc=oidc("https://idp.example")).oidc.claim == "groups"
