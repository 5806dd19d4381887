"""Fixtures for all tests, and the check that no test leaves anything behind."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp._net import openssl
from tests.support import leaks, over_http2
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.peer import Peer, Script
from tests.support.pyserver import PyServer

# A shell without job control starts what runs in its background with SIGINT ignored, and Python then installs no handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' clients trust what the tests say, and take the proxies that they say, whatever the machine's variables are.
for _name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE", "http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)



def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--http2", action="store_true", help="the client's suite once more: clients speak HTTP/2, and the tests' servers behind a front")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--http2"):
        over_http2.begin()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--http2"):
        items[:], rest = over_http2.choose(items)
        config.hook.pytest_deselected(items=rest)


REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    leaks.warm()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, _warm: None) -> Iterator[None]:
    """Descriptors, threads and live objects are as before the test; looked at where the test itself passed."""
    before = leaks.snapshot()
    yield
    report = request.node.stash.get(REPORT, None)
    if report is None or not report.passed:
        leaks.check(before, patience=1.0)          # what ends by itself does so before the next test looks
        return
    left = leaks.check(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(params=["direct", "ssl"])
def tls_mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """TLS records by OpenSSL called directly, and by the `ssl` module: a test of what both must do runs once with each."""
    if request.param == "direct" and not openssl.available():
        pytest.skip("this Python's ssl module does not let OpenSSL be reached")
    before = openssl.use(request.param == "direct")
    yield request.param
    openssl.use(before)


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def pyserver() -> Iterator[PyServer]:
    server = PyServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def tls_pyserver(ca: Authority) -> Iterator[PyServer]:
    server = PyServer(tls=ca.issue())
    yield server
    server.close()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, ca: Authority, pyserver: PyServer) -> Iterator[Nginx]:
    server = Nginx(tmp_path_factory.mktemp("nginx"), certificate=ca.issue(), backend=pyserver.port)
    yield server
    server.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """`peer(script, **options)` makes a `Peer` that stops, and raises what its scripts failed by, at the test's end."""
    made: list[Peer] = []

    def make(script: Script, **options: Any) -> Peer:
        made.append(Peer(script, **options))
        return made[-1]

    yield make
    failures = []
    for one in made:
        try:
            one.stop()
        except BaseException as exc:  # noqa: B036 - all peers stop before the first failure is raised
            failures.append(exc)
    if failures:
        raise failures[0]
