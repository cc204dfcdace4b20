"""The URL of a state in an etcd cluster: ``etcd://user:password@host:2379,host2:2379/namespace?ca=ca.pem``."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ..._model.values import Frozen

PLAIN: Final = "etcd://"
ENCRYPTED: Final = "etcd+tls://"
USER_VARIABLE: Final = "PERSISTENT_CONTEXT_ETCD_USER"
PASSWORD_VARIABLE: Final = "PERSISTENT_CONTEXT_ETCD_PASSWORD"  # noqa: S105 - the name of a variable
_DEFAULT_PORT: Final = 2379
_GREATEST_PORT: Final = 65535
_FILES: Final = ("ca", "cert", "key")
RESERVED: Final = ("k", "m", "o", "q", "l")
"""The first parts of the names of keys within a namespace, so that no namespace is taken for a key of another one."""
_FORM: Final = "etcd://[user:password@]host:port[,host:port...]/namespace"


class Secret(str):
    """A text that tracebacks do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


class Address(Frozen, frozen=True):
    """Where a state is, and how to get there. Credentials are left out of :meth:`place`, and so of every message."""

    endpoints: tuple[str, ...]
    """The host and port of each member, such as ``10.0.0.1:2379`` or ``[::1]:2379``."""
    namespace: str
    is_encrypted: bool
    ca: str | None
    """The file with the certificates of the authorities to trust; None for those of the system."""
    cert: str | None
    """The file with the client's certificate."""
    key: str | None
    """The file with the key of that certificate; None if it is in the same file."""
    user: Secret | None
    password: Secret | None

    def place(self) -> str:
        """Return the URL without user and password; the same for all URLs of one state that name the same endpoints."""
        files = {name: value for name in _FILES if (value := getattr(self, name)) is not None}
        query = f"?{urlencode(files, safe='/')}" if files else ""
        scheme = ENCRYPTED if self.is_encrypted else PLAIN
        return f"{scheme}{','.join(self.endpoints)}/{quote(self.namespace)}{query}"

    def __repr__(self) -> str:
        return f"Address({self.place()!r})"


_remembered: Final[dict[str, Address]] = {}


def remember(url: str) -> str:
    """Return the place of a URL, and remember the user and password for :func:`recall`.

    Raises:
        ValueError: see :func:`parse`.
    """
    address = parse(url)
    place = address.place()
    if address.user is not None:
        _remembered[place] = address
    return place


def recall(place: str) -> Address:
    """Return the address of a place, with the user and password that were last given for it."""
    return _remembered.get(place) or parse(place)


def parse(url: str) -> Address:
    """Parse a URL; user and password that it leaves out are taken from the environment.

    Raises:
        ValueError: it is not a valid URL; the message shows neither user nor password.
    """
    scheme = ENCRYPTED if url.startswith(ENCRYPTED) else PLAIN
    is_encrypted = scheme == ENCRYPTED
    rest, _, fragment = url.removeprefix(scheme).partition("#")
    rest, _, query = rest.partition("?")
    authority, _, namespace = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    namespace = unquote(namespace).strip("/")
    is_free = set(namespace.split("/")[1:]).isdisjoint(RESERVED)
    _require(not fragment, "a # must be written as %23")
    _require(namespace, "the namespace is missing")
    _require(is_free, f"no part of the namespace after the first may be one of {', '.join(RESERVED)}")
    _require(not {"\0", "\N{REPLACEMENT CHARACTER}"} & set(namespace), "the namespace must be valid UTF-8 without NUL")
    options = _options(query, is_encrypted=is_encrypted)
    user, password = _credentials(credentials)
    return Address(
        endpoints=tuple(map(_endpoint, hosts.split(","))),
        namespace=namespace,
        is_encrypted=is_encrypted,
        ca=options.get("ca"),
        cert=options.get("cert"),
        key=options.get("key"),
        user=user,
        password=password,
    )


def _options(query: str, *, is_encrypted: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    are_known = options.keys() <= set(_FILES) and all(options.values()) and bool(options) == bool(query)
    _require(are_known, f"the options are {', '.join(_FILES)}, each with the path of a file")
    _require(is_encrypted or not options, f"certificates need {ENCRYPTED}")
    _require("cert" in options or "key" not in options, "a key needs a cert")
    return {name: os.path.abspath(os.path.expanduser(value)) for name, value in options.items()}


def _credentials(text: str) -> tuple[Secret | None, Secret | None]:
    user, colon, password = text.partition(":")
    found_user = unquote(user) or os.environ.get(USER_VARIABLE)
    found_password = unquote(password) if colon else os.environ.get(PASSWORD_VARIABLE)
    _require(found_password is not None or not found_user, f"the password is missing; set {PASSWORD_VARIABLE}")
    _require(found_user or not colon, f"the user is missing; set {USER_VARIABLE}")
    return (Secret(found_user), Secret(found_password or "")) if found_user else (None, None)


def _endpoint(text: str) -> str:
    """Return a host and port in one form."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]"):  # the colon was inside an IPv6 address
        host, port = text.strip(), str(_DEFAULT_PORT)
    number = int(port) if port.isascii() and port.isdecimal() else 0
    is_ipv6 = host.startswith("[") and host.endswith("]")
    is_host = host and (is_ipv6 or ":" not in host) and not set(host) & set(" \\@")
    is_valid = is_host and 0 < number <= _GREATEST_PORT
    _require(is_valid, "every endpoint must be a host and a port, such as 10.0.0.1:2379 or [::1]:2379")
    return f"{host.lower()}:{number}"


def _require(condition: object, reason: str) -> None:
    if not condition:
        msg = f"an etcd URL must be of the form {_FORM}: {reason}"
        raise ValueError(msg)
