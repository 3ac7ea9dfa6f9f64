"""Who may connect: the token, the origin of pages, and the host name under which they reached this server."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from sedtalker.serve.config import LOOPBACK_NAMES, ServeConfig, is_loopback

COOKIE = "sedtalker_token"


def allows(
    config: ServeConfig, headers: Mapping[str, str], query: Mapping[str, str], cookies: Mapping[str, str]
) -> bool:
    """Whether a request has the token: `Authorization: Bearer`, `?token=`, or the cookie that the page sets."""
    if config.token is None:
        return True
    kind, _, value = headers.get("authorization", "").partition(" ")
    given = [value] if kind.lower() == "bearer" else []
    given += [cookies.get(COOKIE, ""), query.get("token", "")]
    return any([matches(config.token, token) for token in given])  # noqa: C419 - all, in constant time


def matches(token: str, given: str) -> bool:
    """Whether two tokens are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(token.encode(), given.encode(errors="replace"))


def same_origin(config: ServeConfig, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this server's page, an allowed page, or a program other than a browser."""
    origin = headers.get("origin")
    if origin is None or origin in config.origins:
        return True
    place = _split(origin).netloc
    return bool(place) and place == headers.get("host", "")


def known_host(config: ServeConfig, headers: Mapping[str, str]) -> bool:
    """Whether the Host header names this machine, if only this machine can connect.

    A page of another site can resolve its own name to 127.0.0.1 (DNS rebinding), and would then be of the same origin.
    """
    if not is_loopback(config.host):
        return True
    host = _split("//" + headers.get("host", "")).hostname or ""
    return host in (*LOOPBACK_NAMES, config.host, *(_split(origin).hostname for origin in config.origins))


def _split(address: str) -> SplitResult:
    """The parts of an address, all empty if it is none."""
    try:
        return urlsplit(address)
    except ValueError:  # brackets without an IPv6 address
        return urlsplit("")
