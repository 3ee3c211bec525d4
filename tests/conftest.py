"""Pictures and files that several tests need; no test reaches the network; rows for the table of robustness."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_codec.bitstream import DfcFile, Header
from diffusion_codec.book import browser
from tests.survival import PROPERTY, Row, Tally, write_report

# The tests that talk to a server or helpers of their own on this machine; the others open no connection at all.
LOOPBACK = ("tests/test_fetch.py", "tests/backbone/", "tests/evaluation/test_helpers.py", "tests/user_study/")
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost", b"localhost", None)

_now_running = ""


class NetworkUsedError(RuntimeError):
    """A test wanted to connect to a machine."""


def _watch_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a name in the file system
        is_local = not isinstance(address, tuple)
    elif event == "socket.getaddrinfo":
        host, is_local = arguments[0], False
    else:
        return
    if not is_local and not (host in LOOPBACK_HOSTS and _now_running.startswith(LOOPBACK)):
        raise NetworkUsedError(f"{_now_running or 'collecting the tests'} wants to reach {host!r}: {event}")


sys.addaudithook(_watch_network)


@pytest.fixture(autouse=True)
def _name_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    global _now_running
    _now_running = request.node.nodeid
    yield
    _now_running = ""


@pytest.fixture(scope="session")
def need_chromium() -> None:
    """Without a Chromium the test is skipped, and says so; with CI set it fails instead."""
    if browser.find() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(browser.MISSING)


@pytest.fixture(scope="module")
def chromium(need_chromium: None) -> Iterator[Any]:
    """The browser, for the tests of one file."""
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """Adds a row to the table of robustness, and fails unless all of its cases survived."""

    def add(row: Row) -> None:
        record_property(PROPERTY, asdict(row))
        assert row.survived == row.tried > 0, row

    return add


class _Report:
    """Collects the rows of all tests, also from other processes, and writes them at the end."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.started = path, list[Row](), time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            rows = [value for name, value in report.user_properties if name == PROPERTY]
            self.rows += [Row(**row) for row in rows]

    def pytest_sessionfinish(self) -> None:
        write_report(self.rows, self.path, time.monotonic() - self.started)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--robustness-report", type=Path, help="write the rows of the robustness tests here")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--robustness-report")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Report(path))


@pytest.fixture
def small_dfc() -> DfcFile:
    """A file with every optional field and both streams, small enough to damage exhaustively."""
    header = Header(
        width=768,
        height=512,
        weights_fingerprint=b"\x01\x23\x45\x67",
        timestep=137,
        alpha=(-16, 0, 3, 127),
        beta=(-128, 0, 5, 127),
        dither_seed=0xBEEF,
        grayscale=True,
    )
    return DfcFile(header, hyper=b"hyper\r\n\x00", latent=bytes(range(40)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small colour PNG with smooth and noisy parts."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:64]
    ramp = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1)
    pixels = np.clip(ramp + rng.integers(-8, 8, ramp.shape), 0, 255).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path
