"""Machines that fail: full disk, folders that are read-only, little memory, a clock that jumps, no network."""

import errno
import io
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import baselines, cli, datasets
from diffusion_codec._download import DownloadError, download
from diffusion_codec.codec import Codec
from diffusion_codec.evaluation import codecs, records
from diffusion_codec.fetch import _sha256
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.loop import train
from tests.evaluation.sweeps import sweep
from tests.survival import Ended, Row, Tally, in_child

FULL, READ_ONLY, CLOCK = "Full disk", "Read-only folder", "Clock that jumps"
NOBODY = 65534


def one_line(
    arguments: list[object], before: Callable[[], object] = lambda: None, **limits: Any
) -> tuple[int, str]:
    """(exit code, standard error) of the command line in a child that is prepared by ``before``."""

    def run() -> tuple[int, str]:
        before()
        err = io.StringIO()
        with redirect_stderr(err), redirect_stdout(io.StringIO()):
            try:
                cli.main([str(argument) for argument in arguments])
            except SystemExit as exit_:
                return int(exit_.code or 0), err.getvalue()
        return 0, err.getvalue()

    ended = in_child(run, seconds=300, **limits)
    assert ended.value is not None, ended
    code, text = ended.value
    return code, text


def is_one_line(answer: tuple[int, str], words: str) -> bool:
    code, text = answer
    return (
        code == 1 and text.startswith("diffusion-codec: error: ") and text.count("\n") == 1 and words in text
    )


def too_full() -> None:
    """Writing beyond the limit of the file's size fails as on a full disk, instead of ending the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def as_nobody() -> None:
    """Root may write everywhere."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setuid(NOBODY)


def denoiser_run(out: Path) -> None:
    torch.set_num_threads(1)
    config = DenoiserConfig(
        steps=2, batch_size=1, learning_rate=1e-3, crop=64, widths=(16, 16), layers_per_block=1, log_every=1
    )
    train(DenoiserRecipe(config, [torch.zeros(4, 12, 16)]), out)


def jpeg_sweep(photos: datasets.ImageDataset, out: Path, rates: list[float]) -> None:
    sweep([codecs.BaselineCodec(baselines.get("jpeg"))], photos, rates, ["psnr"], out)


@pytest.fixture
def photos(tmp_path: Path) -> datasets.ImageDataset:
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in datasets.load("sample", limit=2):
        Image.fromarray(item.pixels()[:48, :64]).save(folder / f"{item.id}.png")
    return datasets.photographs(folder)


def test_compress_and_decompress_on_a_full_disk(
    codec: Codec, photo: Path, tmp_path: Path, tally: Tally
) -> None:
    packed, out = tmp_path / "photo.dfc", tmp_path / "out"
    out.mkdir()
    packed.write_bytes(codec.compress(np.asarray(Image.open(photo).convert("RGB"))).data)
    for arguments in (["compress", photo, out / "a.dfc"], ["decompress", packed, out / "a.png"]):
        answer = one_line(arguments, too_full, files=16)
        assert is_one_line(answer, "nothing was kept"), answer
        assert list(out.iterdir()) == []
    tally(
        Row(FULL, "compress, decompress", 2, 2, refused=2, injected=2, note="one line, nothing left behind")
    )


def test_evaluate_on_a_full_disk(photos: datasets.ImageDataset, tmp_path: Path, tally: Tally) -> None:
    """What was measured before is kept, and the next run goes on."""
    out = tmp_path / "r.csv"
    jpeg_sweep(photos, out, [1.6])
    kept = records.read(out).records

    def on_a_full_disk() -> None:
        too_full()
        limit = out.stat().st_size + 40
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(limit, 16384), max(limit, 16384)))
        out.write_bytes(out.read_bytes())
        monkey = Path.open

        def full(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if path == out and mode == "a":
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, max(limit, 16384)))
            return monkey(path, mode, *arguments, **named)

        Path.open = full  # type: ignore[method-assign, assignment]
        jpeg_sweep(photos, out, [1.6, 2.4])

    ended = in_child(on_a_full_disk, seconds=120)
    assert (ended.error, "what was measured before is kept" in ended.message) == ("OutputError", True), ended
    assert not out.read_bytes().endswith(b"\n")  # the line that was being written is cut
    jpeg_sweep(photos, out, [1.6, 2.4])
    after = records.read(out).records
    assert after[: len(kept)] == kept
    assert len(after) == 4
    tally(
        Row(
            FULL,
            "evaluate",
            1,
            1,
            refused=1,
            injected=1,
            note="what was measured is kept, the next run goes on",
        )
    )


def test_training_on_a_full_disk(tmp_path: Path, tally: Tally) -> None:
    out = tmp_path / "run"
    ended = in_child(lambda: (too_full(), denoiser_run(out)), seconds=120, files=2**14)
    assert (ended.error, "checkpoint before it is kept" in ended.message) == ("OutputError", True), ended
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "losses.csv", "origin.json"]
    assert in_child(lambda: denoiser_run(out), seconds=120).error == ""
    assert (out / "state.safetensors").exists()
    tally(Row(FULL, "training", 1, 1, refused=1, injected=1, note="one line, the next run goes on"))


def test_download_to_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    def full(path: Path, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DownloadError, match="No space left on device; set DIFFUSION_CODEC_CACHE"):
        download(["http://127.0.0.1:9/"], tmp_path / "cache" / "a", "0" * 64)
    tally(Row(FULL, "fetching", 1, 1, refused=1, injected=1, note="one line that names the setting"))


def test_read_only_folders(
    codec: Codec, photo: Path, photos: datasets.ImageDataset, tmp_path: Path, tally: Tally
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o005)
    packed = tmp_path / "photo.dfc"
    packed.write_bytes(codec.compress(np.asarray(Image.open(photo).convert("RGB"))).data)

    commands: list[list[object]] = [
        ["compress", photo, closed / "a.dfc"],
        ["decompress", packed, closed / "a.png"],
    ]
    for arguments in commands:
        answer = one_line(arguments, as_nobody)
        assert is_one_line(answer, "closed"), answer
    # these two the command line turns into its one line
    for work in (
        lambda: denoiser_run(closed / "run"),
        lambda: jpeg_sweep(photos, closed / "r" / "r.csv", [1.6]),
    ):
        ended = in_child(lambda work=work: (as_nobody(), work()))
        assert (ended.error, str(closed) in ended.message) == ("PermissionError", True), ended
    assert list(closed.iterdir()) == []
    tally(
        Row(READ_ONLY, "compress, decompress, evaluate, train", 4, 4, refused=4, injected=4, note="one line")
    )


SMALL_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from diffusion_codec.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("side", "fits"), [(256, True), (7000, False)])
def test_one_gibibyte_of_memory(side: int, fits: bool, tmp_path: Path, tally: Tally) -> None:
    """With the embedded model: a small picture is compressed, a large one is refused in one line."""
    Image.new("RGB", (side, side), "teal").save(tmp_path / "in.png")
    command = [
        sys.executable,
        "-c",
        SMALL_MEMORY,
        "compress",
        str(tmp_path / "in.png"),
        str(tmp_path / "out.dfc"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if fits:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert is_one_line((done.returncode, done.stderr), "memory"), done.stderr
    assert (tmp_path / "out.dfc").exists() == fits
    what = f"compress {side} x {side} pixels in 1 GiB of address space"
    tally(Row("Little memory", what, 1, 1, refused=int(not fits), accepted=int(fits), injected=1))


def jumping_clock() -> None:
    """The time of day jumps by up to three years, back and forth, at every look."""
    real, source = time.time, random.Random(3)
    time.time = lambda: real() + source.uniform(-1e8, 1e8)


def test_a_clock_that_jumps(
    codec: Codec, photo: Path, photos: datasets.ImageDataset, tmp_path: Path, tally: Tally
) -> None:
    def results(name: str) -> tuple[bytes, list[Any], bytes]:
        folder = tmp_path / name
        folder.mkdir()
        arguments = ["compress", str(photo), str(folder / "a.dfc")]
        with pytest.raises(SystemExit):
            cli.main(arguments)
        jpeg_sweep(photos, folder / "r.csv", [1.6])
        measured = [(r.image, r.bytes, r.value) for r in records.read(folder / "r.csv").records]
        denoiser_run(folder / "run")
        return (folder / "a.dfc").read_bytes(), measured, (folder / "run" / "state.safetensors").read_bytes()

    steady = in_child(lambda: results("steady"), seconds=120)
    jumped = in_child(lambda: (jumping_clock(), results("jumped"))[1], seconds=120)
    assert steady.value is not None, steady
    assert jumped.value == steady.value, jumped.error
    tally(Row(CLOCK, "compress, evaluate, training", 3, 3, accepted=3, injected=3, note="the same results"))


def test_dates_of_files_decide_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    hashes = set()
    for when in (0, 2**31, 4e9):
        os.utime(path, (when, when))
        hashes.add(_sha256(path))
    assert len(hashes) == 1


def no_sockets() -> None:
    """From here on this process may not even make a socket of the internet."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        internet = event == "socket.__new__" and arguments[1] in (2, 10)
        if internet or event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
            raise RuntimeError(f"the network is used: {event} {arguments}")

    sys.addaudithook(refuse)


def test_nothing_but_fetching_uses_the_network(tmp_path: Path, photo: Path, tally: Tally) -> None:
    golden = Path(__file__).parents[1] / "conformance" / "1.0"
    packed = golden / "good" / "photo.dfc"
    model = ["--backbone", golden / "backbone", "--codec-weights", golden / "weights" / "context.safetensors"]
    commands: dict[str, list[object]] = {
        "compress": ["compress", photo, tmp_path / "a.dfc", *model],
        "decompress": ["decompress", packed, tmp_path / "a.png", *model],
        "info": ["info", packed],
        "evaluate": ["evaluate", "--smoke", "--codecs", "jpeg", "--bitrates", "1.6", "--metrics", "psnr",
                     "--out", tmp_path / "r.csv"],
    }  # fmt: skip
    for name, arguments in commands.items():
        code, text = one_line(arguments, no_sockets)
        assert code == 0, (name, text)
    assert {path.name for path in tmp_path.iterdir()} >= {"a.dfc", "a.png", "r.csv"}
    what = "compress, decompress, info, evaluate with every socket refused"
    tally(
        Row("No network", what, len(commands), len(commands), accepted=len(commands), injected=len(commands))
    )


def test_the_guard_would_notice() -> None:
    def connect() -> None:
        no_sockets()
        socket.socket(socket.AF_INET)

    ended: Ended = in_child(connect)
    assert (ended.error, "the network is used" in ended.message) == ("RuntimeError", True)


def test_no_test_reaches_another_machine() -> None:
    for host in ("192.0.2.1", "127.0.0.1"):
        with pytest.raises(RuntimeError, match="wants to reach"):
            socket.create_connection((host, 9), timeout=0.01)


def test_a_fetch_without_a_network_is_one_line(tmp_path: Path, tally: Tally) -> None:
    def unplug() -> None:
        def nobody_answers(*arguments: Any, **named: Any) -> None:
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        os.environ |= {"DIFFUSION_CODEC_MIRROR": "", "DIFFUSION_CODEC_CACHE": str(tmp_path)}
        socket.getaddrinfo = nobody_answers  # type: ignore[assignment]

    arguments: list[object] = [
        "evaluate",
        "--dataset",
        "kodak",
        "--codecs",
        "jpeg",
        "--out",
        tmp_path / "r.csv",
    ]
    code, text = one_line(arguments, unplug)
    assert code == 1
    for words in ("error: kodak", "name resolution", "What to do"):
        assert words in text
    tally(
        Row(
            "No network",
            "a data set that is not here",
            1,
            1,
            refused=1,
            injected=1,
            note="one error that says how",
        )
    )
