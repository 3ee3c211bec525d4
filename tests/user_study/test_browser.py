"""Raters in a real browser (headless Chromium), a real server in a process of its own, which gets killed.

Without a Chromium these tests are skipped, and say so; with CI set they fail instead.
"""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diffusion_codec.user_study import page as pages
from diffusion_codec.user_study import store, votes
from diffusion_codec.user_study.design import Sessions, Study, load
from diffusion_codec.user_study.store import Store
from tests.user_study.studies import make_study


class Server:
    """`diffusion-codec study serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "diffusion_codec", "study", "serve", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout
        first = self.process.stdout.readline()
        assert self.address in first, first + self.process.stdout.read()

    def kill(self) -> None:
        """As a power cut would: no warning, nothing flushed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, title="</script><script>window.hacked = 1</script>")
    return folder


@pytest.fixture(scope="module")
def one_server(study_folder: Path) -> Iterator[Server]:
    server = Server(study_folder)
    yield server
    server.kill()


@pytest.fixture
def server(one_server: Server) -> Server:
    """Running, and without a vote."""
    with closing(sqlite3.connect(one_server.folder / store.FILE)) as database, database:
        database.execute("DELETE FROM vote")
        database.execute("DELETE FROM session")
    return one_server


@pytest.fixture
def study(study_folder: Path) -> Study:
    return load(study_folder)


class Rater:
    """A person at a page; notes every request and every error of the page."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)

    def begin(self) -> "Rater":
        self.page.get_by_role("checkbox").check()
        self.page.get_by_role("button", name="Begin").click()
        return self

    def sees(self, number: int, total: int) -> None:
        """The pictures of this question are on the screen."""
        self.page.locator("#progress", has_text=re.compile(f"^{number} of {total}$")).wait_for()
        self.page.locator("#frame img.shown").wait_for()

    def clicks(self, choice: str) -> None:
        for name in ("A", "B", "Original"):
            self.page.get_by_role("button", name=name, exact=True).click()
        names = {"a": "A is better", "b": "B is better", "tie": "No difference"}
        self.page.get_by_role("button", name=names[choice]).click()

    def types(self, choice: str) -> None:
        press = self.page.keyboard.press
        press("ArrowLeft")
        press("ArrowRight")
        if choice == "tie":
            press("0")
        else:
            press("ArrowLeft" if choice == "a" else "ArrowRight")
            press("Enter")

    def done(self) -> None:
        self.page.get_by_role("heading", name="Thank you").wait_for()

    def stored(self) -> None:
        self.page.get_by_text("Your votes are stored").wait_for()

    def leave(self) -> None:
        assert self.errors == []
        self.context.close()


def rows(folder: Path) -> list[dict[str, Any]]:
    study = load(folder)
    return Store(folder / store.FILE, study).rows(Sessions(study))


CHOICES = ["a", "b", "tie", "b", "a", "a"]


def test_a_whole_session_by_clicks(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address).begin()
    for number, choice in enumerate(CHOICES, 1):
        rater.sees(number, study.trials)
        rater.clicks(choice)
    rater.stored()
    found = rows(server.folder)
    assert [row["choice"] for row in found] == CHOICES
    assert all(0 < row["seconds"] < 60 for row in found)
    assert {urlsplit(url).netloc for url in rater.requests} == {f"127.0.0.1:{server.port}"}
    assert rater.page.evaluate("window.hacked") is None
    assert rater.page.title() == study.title
    rater.leave()


def test_a_whole_session_by_keyboard(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address)
    press = rater.page.keyboard.press
    rater.page.get_by_role("checkbox").wait_for()
    press("Tab")
    press("Space")
    press("Tab")
    press("Enter")
    for number, choice in enumerate(CHOICES, 1):
        rater.sees(number, study.trials)
        rater.types(choice)
    rater.stored()
    press("Enter")  # one too many must not begin another round
    rater.done()
    assert [row["choice"] for row in rows(server.folder)] == CHOICES
    rater.leave()


def test_nobody_can_choose_before_looking_at_both(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    button = rater.page.get_by_role("button", name="A is better")
    assert button.get_attribute("aria-disabled") == "true"
    button.click(force=True)
    rater.page.keyboard.press("Enter")
    rater.page.keyboard.press("ArrowLeft")
    rater.page.keyboard.press("Enter")
    rater.sees(1, study.trials)
    assert rows(server.folder) == []
    rater.page.keyboard.press("ArrowRight")
    assert button.get_attribute("aria-disabled") == "false"
    rater.leave()


def test_the_three_pictures_take_one_place_and_the_space_bar_shows_the_original(
    chromium: Any, server: Server, study: Study
) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    shown = rater.page.locator("#frame img.shown")

    def state() -> tuple[str, str]:
        return str(shown.get_attribute("data-side")), str(shown.bounding_box())

    places = set()
    for key, side in (("ArrowLeft", "a"), ("ArrowRight", "b"), ("o", "original")):
        rater.page.keyboard.press(key)
        assert state()[0] == side
        places.add(state()[1])
    assert len(places) == 1
    rater.page.keyboard.press("ArrowLeft")
    rater.page.keyboard.down("Space")
    assert state()[0] == "original"
    rater.page.keyboard.up("Space")
    assert state()[0] == "a"
    rater.leave()


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_picture_pixel_is_a_whole_number_of_screen_pixels(
    chromium: Any, server: Server, study: Study, scale: int
) -> None:
    rater = Rater(chromium, server.address, device_scale_factor=scale).begin()
    rater.sees(1, study.trials)
    shown = rater.page.locator("#frame img.shown")
    rater.page.keyboard.press("1")
    for zoom in (1, 2, 3):
        assert shown.bounding_box()["width"] * scale == pytest.approx(80 * zoom, abs=0.1)
        rater.page.get_by_role("button", name="Zoom in").click()
    rater.leave()


def test_a_reload_in_the_middle_goes_on_and_doubles_nothing(
    chromium: Any, server: Server, study: Study
) -> None:
    rater = Rater(chromium, server.address).begin()
    for number, choice in enumerate(CHOICES, 1):
        rater.sees(number, study.trials)
        rater.clicks(choice)
        if number in (2, 3):
            rater.page.reload()
    rater.stored()
    assert [row["choice"] for row in rows(server.folder)] == CHOICES
    rater.page.reload()
    rater.stored()
    rater.leave()


def test_two_raters_at_once_do_not_disturb_each_other(chromium: Any, server: Server, study: Study) -> None:
    first, second = (Rater(chromium, server.address).begin() for _ in range(2))
    for number in range(1, study.trials + 1):
        first.sees(number, study.trials)
        second.sees(number, study.trials)
        first.types("a")
        second.clicks("b")
    first.stored()
    second.stored()
    found = rows(server.folder)
    chosen = {row["rater"]: [r["choice"] for r in found if r["rater"] == row["rater"]] for row in found}
    assert sorted(chosen.values()) == [["a"] * study.trials, ["b"] * study.trials]
    names = {rater.page.get_by_text("Your votes are stored").inner_text() for rater in (first, second)}
    assert len(names) == 2
    first.leave()
    second.leave()


def test_a_killed_server_loses_and_doubles_no_vote(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    rater.clicks(CHOICES[0])
    rater.sees(2, study.trials)
    rater.page.evaluate("now.ahead.images.then(() => true)")  # the next pictures are here already
    server.kill()
    rater.clicks(CHOICES[1])
    rater.page.get_by_text("The server does not answer").wait_for()
    rater.sees(3, study.trials)
    rater.clicks(CHOICES[2])  # while nobody listens
    server.start()
    for number, choice in enumerate(CHOICES[3:], 4):
        rater.sees(number, study.trials)
        rater.clicks(choice)
        if number == 4:
            server.kill()
            server.start()
    rater.stored()
    found = rows(server.folder)
    assert [row["trial"] for row in found] == list(range(study.trials))
    assert [row["choice"] for row in found] == CHOICES
    rater.leave()


def test_votes_wait_on_the_device_over_a_reload_until_the_server_is_back(
    chromium: Any, server: Server, study: Study
) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    rater.page.route("**/api/vote", lambda route: route.abort())
    rater.clicks("b")
    rater.sees(2, study.trials)
    assert rows(server.folder) == []
    rater.page.unroute("**/api/vote")
    rater.page.reload()
    rater.sees(2, study.trials)
    rater.clicks("a")
    rater.sees(3, study.trials)
    rater.page.evaluate("votes.flush()")
    assert [row["choice"] for row in rows(server.folder)] == ["b", "a"]
    rater.leave()


def test_who_withdraws_leaves_no_vote(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    rater.clicks("a")
    rater.sees(2, study.trials)
    rater.page.evaluate("votes.flush()")
    rater.page.on("dialog", lambda dialog: dialog.accept())
    rater.page.get_by_role("button", name="Keys and help").click()
    rater.page.get_by_role("button", name="Withdraw").click()
    rater.page.get_by_text("Your votes were deleted").wait_for()
    assert rows(server.folder) == []
    rater.leave()


def test_a_second_round_has_the_same_rater(chromium: Any, server: Server, study: Study) -> None:
    rater = Rater(chromium, server.address).begin()
    for _ in range(2):
        for number in range(1, study.trials + 1):
            rater.sees(number, study.trials)
            rater.types("a")
        rater.stored()
        rater.page.get_by_role("button", name="Do another round").click()
    rater.sees(1, study.trials)
    found = rows(server.folder)
    assert len(found) == 2 * study.trials
    assert len({row["rater"] for row in found}) == 1
    rater.leave()


def test_scripts_and_requests_that_are_not_the_pages_own_are_blocked(chromium: Any, server: Server) -> None:
    rater = Rater(chromium, server.address)
    rater.page.get_by_role("checkbox").wait_for()
    rater.page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.hacked = 1';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.hacked = 1">');
        }"""
    )
    blocked = rater.page.evaluate("fetch('http://127.0.0.2/').then(() => 'sent', (error) => error.message)")
    assert blocked != "sent"
    assert rater.page.evaluate("window.hacked") is None
    assert not any("127.0.0.2" in url for url in rater.requests)
    rater.leave()


PHONE = {
    "viewport": {"width": 360, "height": 640},
    "device_scale_factor": 3,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_shows_everything_without_scrolling_and_buttons_a_finger_can_hit(
    chromium: Any, server: Server, study: Study, scheme: str
) -> None:
    rater = Rater(chromium, server.address, color_scheme=scheme, **PHONE).begin()
    rater.sees(1, study.trials)
    for button in rater.page.locator("#trial button").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 640
    assert rater.page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = rater.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(number) for number in re.findall(r"\d+", ground))
    assert red == green == blue, "a tinted surround changes how pictures look"
    assert (red < 128) == (scheme == "dark")
    rater.leave()


def test_every_control_has_a_name_and_what_is_shown_is_said(
    chromium: Any, server: Server, study: Study
) -> None:
    rater = Rater(chromium, server.address).begin()
    rater.sees(1, study.trials)
    for button in rater.page.locator("button").all():
        assert button.get_attribute("aria-label") or button.inner_text().strip() or not button.is_visible()
    rater.page.get_by_role("button", name="B", exact=True).click()
    assert rater.page.get_by_role("status").first.inner_text() == "B is shown"
    pressed = rater.page.locator('#below button[aria-pressed="true"]').all_inner_texts()
    assert pressed == ["B"]
    assert rater.page.locator("#frame img[aria-hidden=false]").count() == 1
    assert rater.page.locator("html").get_attribute("lang") == "en"
    rater.leave()


@pytest.fixture
def static_page(study_folder: Path, study: Study, tmp_path: Path) -> Path:
    target = tmp_path / "study.html"
    pages.write_static(study, study_folder, target, sessions=3)
    return target


def test_the_page_without_a_server_runs_from_a_file_and_gives_the_same_csv(
    chromium: Any, static_page: Path, study: Study, tmp_path: Path
) -> None:
    rater = Rater(chromium, static_page.as_uri(), accept_downloads=True).begin()
    for number, choice in enumerate(CHOICES, 1):
        rater.sees(number, study.trials)
        rater.clicks(choice) if number % 2 else rater.types(choice)
        if number == 3:
            rater.page.reload()
    rater.done()
    with rater.page.expect_download() as download:
        rater.page.get_by_role("button", name="Download my votes").click()
    path = tmp_path / "votes.csv"
    download.value.save_as(path)
    table = votes.read([path])
    assert list(table["choice"]) == CHOICES
    (session,) = set(table["session"])
    for row, trial in zip(table.itertuples(), Sessions(study)[int(session)], strict=True):
        assert (row.kind, row.image) == (trial.kind, trial.original.image)
        assert (row.a, row.b) == (trial.a.condition.codec, trial.b.condition.codec)
    assert {urlsplit(url).scheme for url in rater.requests} <= {"file", "data", "blob"}
    assert rater.page.evaluate("window.hacked") is None
    rater.leave()


def test_the_page_without_a_server_forgets_on_request(chromium: Any, static_page: Path, study: Study) -> None:
    rater = Rater(chromium, static_page.as_uri()).begin()
    rater.sees(1, study.trials)
    rater.types("a")
    rater.sees(2, study.trials)
    rater.page.on("dialog", lambda dialog: dialog.accept())
    rater.page.get_by_role("button", name="Keys and help").click()
    rater.page.get_by_role("button", name="Withdraw").click()
    rater.page.get_by_text("Your votes were deleted").wait_for()
    assert json.loads(rater.page.evaluate("localStorage.getItem(KEY)") or "{}") == {}
    rater.leave()
