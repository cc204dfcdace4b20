"""A namespace of etcd for each test, and a proxy in front of it."""

from __future__ import annotations

import pytest

import etcd
from etcdproxy import Proxy
from persistent_context._stores.etcd.address import parse
from persistent_context._stores.etcd.client import Client
from persistent_context._stores.etcd.connections import Connections
from persistent_context._stores.etcd.failures import RefusedError
from persistent_context._stores.etcd.gateway import Gateway
from persistent_context._stores.etcd.state import Names
from persistent_context._stores.etcd.store import EtcdStore


@pytest.fixture
def url():
    """The URL of a namespace that nobody has used."""
    etcd.require_etcd()
    return etcd.url()


@pytest.fixture
def client(url):
    """A client of the cluster."""
    return Client(Gateway(parse(url)))


@pytest.fixture
def names(url):
    """The names of the keys in the namespace."""
    return Names.of(parse(url).namespace)


@pytest.fixture
def proxy():
    """A proxy in front of the member."""
    with Proxy(etcd.member().endpoint) as one:
        yield one


@pytest.fixture
def proxied(proxy, url):
    """The URL of the same namespace, through the proxy."""
    return f"etcd://{proxy.endpoint}/{parse(url).namespace}"


@pytest.fixture
def store(url):
    """A store in the namespace."""
    return EtcdStore(parse(url))


@pytest.fixture
def fill(monkeypatch):
    """A function: the next request whose body is wanted fills the store, and is refused, though carried out."""
    ask, wanted_ones = Connections.ask, []

    def answer(self, endpoint, path, body, token):
        content = ask(self, endpoint, path, body, token)
        if wanted_ones and wanted_ones[-1](body):
            wanted_ones.pop()
            raise RefusedError(8, "etcdserver: mvcc: database space exceeded", endpoint)
        return content

    monkeypatch.setattr(Connections, "ask", answer)
    return wanted_ones.append
