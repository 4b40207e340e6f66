"""OpenID providers of tests: a small one that can be wrong in every way, and the certified one of npm."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from ports import free_port
from service.receiving import running

CLIENT, SECRET = "hilum", "the-secret-of-the-node"
PAIR = f"{CLIENT}:{SECRET}".encode()


def _of(digest: bytes) -> str:
    """A digest as a code challenge, RFC 7636 4.2."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _key(name: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": name, "use": "sig"})


@dataclass
class SmallProvider:
    """A provider that vouches for `person`; token: what its tokens state otherwise, None for a claim that they lack.

    signing: the key of its tokens, which it publishes unless `published` is another one
    """

    issuer: str
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "17", "preferred_username": "anna", "groups": ["rad"]}
    )
    token: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    signing: ECKey = field(default_factory=lambda: _key("first"))
    published: ECKey | None = None
    clock: float = 0.0
    asked: dict[str, dict[str, str]] = field(default_factory=dict)

    def turn_keys(self) -> None:
        """Sign with another key from now on."""
        self.signing = _key("second")

    def authorise(self, address: str) -> str:
        """The query with which it leads a browser back that was led to this address."""
        query = {name: value for name, [value] in parse_qs(urlsplit(address).query).items()}
        assert query["response_type"] == "code" and query["code_challenge_method"] == "S256"
        code = hashlib.sha256(query["state"].encode()).hexdigest()
        self.asked[code] = query
        return f"code={code}&state={query['state']}"

    def answer(self, path: str, body: dict[str, str], authorization: str) -> tuple[int, Any]:
        """What it answers at a path."""
        places = {name: f"{self.issuer}/{name}" for name in ("auth", "token", "jwks", "userinfo")}
        if path == "/.well-known/openid-configuration":
            stated = {"authorization_endpoint": places["auth"], "jwks_uri": places["jwks"]}
            stated |= {f"{name}_endpoint": places[name] for name in ("token", "userinfo")}
            return 200, {"issuer": self.issuer, **stated}
        if path == "/jwks":
            return 200, KeySet([self.published or self.signing]).as_dict(private=False)
        if path == "/userinfo":
            return 200, self.person
        query = self.asked.pop(body.get("code", ""), None)  # a code is taken once
        verifier = hashlib.sha256(body.get("code_verifier", "").encode()).digest()
        is_ours = query is not None and _of(verifier) == query["code_challenge"]
        if query is None or not is_ours or authorization != f"Basic {base64.b64encode(PAIR).decode()}":
            return 400, {"error": "invalid_grant"}
        now = time.time() + self.clock
        claims = {"iss": self.issuer, "sub": self.person["sub"], "aud": CLIENT, "iat": now, "exp": now + 60}
        claims |= {"nonce": query["nonce"], **self.token}
        claims = {name: value for name, value in claims.items() if value is not None}
        head = {"alg": "ES256", "kid": self.signing.kid, **self.header}
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": jwt.encode(head, claims, self.signing)}


@contextmanager
def small_provider() -> Iterator[SmallProvider]:
    """A provider on a free port."""
    made = SmallProvider("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = {name: value for name, [value] in parse_qs(self.rfile.read(length).decode()).items()}
            status, found = made.answer(urlsplit(self.path).path, body, self.headers.get("Authorization", ""))
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name that the server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()


CERTIFIED = """
import { createServer } from 'node:http';
const { Provider } = await import(process.argv[2]);
const [port, client_id, client_secret, back] = process.argv.slice(3);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id, client_secret, redirect_uris: [back] }],
  claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
  cookies: { keys: ['of tests alone'] },
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({ sub, preferred_username: sub, groups: sub === 'guest' ? [] : ['staff', 'rad'] }),
  }),
});
createServer(provider.callback()).listen(Number(port), '127.0.0.1');
"""


@contextmanager
def certified_provider(folder: Path, back: str) -> Iterator[str]:
    """The issuer of an `oidc-provider`, certified by the OpenID Foundation. back: where it leads browsers back."""
    root = Path(os.environ.get("HILUM_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
    index = root / "oidc-provider" / "lib" / "index.js"
    if shutil.which("node") is None or not index.exists():
        pytest.skip("oidc-provider is not there: run `npm install --no-save oidc-provider`, or set HILUM_NODE_MODULES")
    script, port = folder / "provider.mjs", free_port()
    script.write_text(CERTIFIED)
    command = ["node", script, index, str(port), CLIENT, SECRET, back]
    with running(command, port, stderr=subprocess.DEVNULL):
        yield f"http://127.0.0.1:{port}"


def agree(browser: httpx.Client, answer: httpx.Response, person: str) -> httpx.Response:
    """Log in at the pages of `oidc-provider`, and agree to what is asked; what it leads back to, not followed."""
    for _ in range(12):
        if answer.is_redirect:
            to = answer.url.join(answer.headers["location"])
            if "/api/login/openid/answer" in to.path:
                return answer
            answer = browser.get(to)
        else:
            [prompt] = re.findall(r'name="prompt" value="(\w+)"', answer.text)
            given = {"prompt": prompt, "login": person, "password": "any"}
            answer = browser.post(answer.url, data=given)
    raise AssertionError("the provider leads nowhere")
