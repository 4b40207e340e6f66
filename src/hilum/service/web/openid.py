"""Logging in with an OpenID provider: authorization code flow with PKCE, OpenID Connect Core 1.0 and RFC 7636."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, InvalidKeyIdError, InvalidTokenError, JoseError
from joserfc.jwk import KeySet
from pydantic import JsonValue

from hilum.errors import HilumError
from hilum.files.storage import structured_text
from hilum.service.configuration import OidcSection
from hilum.service.records.accounts import NAME
from hilum.work_state import log

SECRET = "HILUM_OIDC_SECRET"  # noqa: S105 - the name of a variable
ANSWER_S = 10.0  # for one answer of the provider
FRESH_S = 3600.0  # how long what it states of itself is kept
CLOCKS_S = 120  # by which its clock and ours may differ
# Signatures by a key that only the provider has. RFC 7518 3.1
SIGNED = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
MEANS = ("client_secret_basic", "client_secret_post")  # by which the node shows its secret
CLAIMS_OF_NAMES = ("preferred_username", "email", "sub")  # claims that name a person, the best first
RANKS = ("administrator", "radiologist", "viewer")  # who is several things gets the first


class ProviderError(HilumError):
    """A provider that does not answer (status 503), or does not vouch for somebody (403)."""

    def __init__(self, status: int, problem: str, remedy: str) -> None:
        super().__init__(problem, "the OpenID provider", remedy)
        self.args = (status, problem, remedy)
        self.status = status


@dataclass(frozen=True)
class VouchedPerson:
    """A person as a provider names it. subject: the provider and its own key of the person, which never changes"""

    subject: str
    account: str
    role: str


@dataclass(eq=False)
class Provider:
    """The provider of the settings; what it states of itself, and its keys, are asked for when they are needed."""

    settings: OidcSection
    _stated: dict[str, JsonValue] = field(default_factory=dict)
    _keys: dict[str, JsonValue] = field(default_factory=dict)
    _asked: float = 0.0

    def address(self, back: str, state: str, nonce: str, verifier: str) -> str:
        """Address at which a browser logs in. back: where it comes back to. Raises ProviderError."""
        endpoint = self._configuration()["authorization_endpoint"]
        with self._session(back) as session:
            address, _ = session.create_authorization_url(endpoint, state=state, nonce=nonce, code_verifier=verifier)
            return str(address)

    def vouched_person(self, back: str, code: str, nonce: str, verifier: str) -> VouchedPerson:
        """The person for whom a code was given. Raises ProviderError where it vouches for nobody."""
        configuration = self._configuration()
        with self._session(back) as session:
            try:
                token = session.fetch_token(
                    configuration["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=verifier
                )
                claims = self._claims(token, nonce)
                if (endpoint := configuration.get("userinfo_endpoint")) is not None:
                    # Many providers state in the token who somebody is, and what, only where they are asked.
                    answer = session.get(endpoint)
                    answer.raise_for_status()
                    further = structured_text.parse_json(answer.content)
                    if not isinstance(further, dict) or further.get("sub") != claims["sub"]:
                        raise _refusal("it names another person than its token")
                    claims = {**further, **claims}
            except OAuthError as error:
                log.warning("the OpenID provider refused a code: %s", error.error)
                raise _refusal("it does not accept its own code") from error
            except (requests.RequestException, ValueError) as error:
                raise _away(error) from error
        return self._person(claims)

    def _session(self, back: str) -> OAuth2Session:
        taken = cast(
            "Sequence[str]", self._configuration().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        )
        secret = os.environ.get(SECRET)
        # Without a secret PKCE alone shows that the code is ours.
        means = "none" if not secret else next((one for one in MEANS if one in taken), MEANS[0])
        return OAuth2Session(
            self.settings.client_id,
            secret,
            token_endpoint_auth_method=means,
            scope=" ".join(dict.fromkeys(["openid", *self.settings.scopes])),
            redirect_uri=back,
            code_challenge_method="S256",
            default_timeout=ANSWER_S,
        )

    def _configuration(self) -> dict[str, JsonValue]:
        """Statements of the provider on itself, OpenID Connect Discovery 1.0 4."""
        if not self._stated or time.monotonic() - self._asked > FRESH_S:
            issuer = self.settings.issuer
            configuration = _read_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if configuration.get("issuer") != issuer:
                raise _refusal(f"it calls itself {str(configuration.get('issuer'))[:200]!r}, and not as [oidc] issuer")
            if not {"authorization_endpoint", "token_endpoint", "jwks_uri"} <= configuration.keys():
                raise _refusal("it does not state where to log in")
            self._stated, self._keys, self._asked = configuration, {}, time.monotonic()
        return self._stated

    def _claims(self, token: Mapping[str, JsonValue], nonce: str) -> dict[str, JsonValue]:
        """Claims of a token on a person, once it is certain that it was made for this login."""
        text, settings = str(token.get("id_token", "")), self.settings
        try:
            try:
                decoded = jwt.decode(text, self._key_set(), algorithms=list(SIGNED))
            except (InvalidKeyIdError, BadSignatureError):
                # The provider may have turned its keys since it was asked.
                decoded = jwt.decode(text, self._key_set(anew=True), algorithms=list(SIGNED))
            required = {
                "iss": {"essential": True, "value": settings.issuer},
                "aud": {"essential": True, "value": settings.client_id},
                "nonce": {"essential": True, "value": nonce},
            }
            about = {"client_id": settings.client_id, "nonce": nonce, "access_token": token.get("access_token")}
            claims = CodeIDToken(decoded.claims, decoded.header, required, about)
            claims.validate(leeway=CLOCKS_S)
        except (ExpiredTokenError, InvalidTokenError) as error:
            raise _refusal(self._of_clocks(decoded.claims)) from error
        except (JoseError, ValueError, KeyError, TypeError) as error:
            log.warning("the OpenID provider sent a token that is not for us: %s", type(error).__name__)
            raise _refusal("its token is not for this node, or not signed by its keys") from error
        return dict(claims)

    def _of_clocks(self, claims: Mapping[str, JsonValue]) -> str:
        """Why a token is not of now."""
        issued_at = claims.get("iat")
        if not isinstance(issued_at, int | float):
            return "its token does not state when it was made"
        ahead = issued_at - time.time()
        clock = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
        return f"its token was made by a clock {clock}: set both clocks by NTP"

    def _key_set(self, *, anew: bool = False) -> KeySet:
        if anew or not self._keys:
            self._keys = _read_json(str(self._configuration()["jwks_uri"]))
        return KeySet.import_key_set(cast("Any", self._keys))

    def _person(self, claims: Mapping[str, JsonValue]) -> VouchedPerson:
        has = _claim_values(claims, self.settings.claim)
        roles = cast("Mapping[str, str]", self.settings.roles)
        role = next((role for role in RANKS if roles.get(role) in has), None)
        if role is None:
            problem = f"it gives you no role here: none of {self.settings.claim} is listed in [oidc] roles"
            raise ProviderError(403, problem, "Ask those who run the provider")
        names = (str(claims.get(name, "")) for name in CLAIMS_OF_NAMES)
        account = next((name for name in names if re.fullmatch(NAME, name)), None)
        if account is None:
            raise _refusal("it states no name of you that an account could have")
        return VouchedPerson(f"{self.settings.issuer} {claims['sub']}", account, role)


def _claim_values(claims: Mapping[str, JsonValue], name: str) -> list[str]:
    """The values of a claim, which may lie below others."""
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return [str(one) for one in found] if isinstance(found, list) else [found] if isinstance(found, str) else []


def _read_json(address: str) -> dict[str, JsonValue]:
    """JSON at an address of the provider."""
    try:
        answer = requests.get(address, timeout=ANSWER_S)
        answer.raise_for_status()
        found = structured_text.parse_json(answer.content)
    except (requests.RequestException, ValueError) as error:
        raise _away(error) from error
    return found if isinstance(found, dict) else {}


def _away(error: Exception) -> ProviderError:
    log.warning("the OpenID provider does not answer: %s", type(error).__name__)
    return ProviderError(503, "it does not answer", "Try again, or log in by password")


def _refusal(problem: str) -> ProviderError:
    return ProviderError(403, problem, "Begin again, or ask those who run it")
