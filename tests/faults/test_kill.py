"""kill -9 at random moments: nothing half under its final name, the next run goes on, nothing lost or doubled."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from diffusion_codec import baselines, cli, datasets
from diffusion_codec.book import builder
from diffusion_codec.book.__main__ import main as book_main
from diffusion_codec.book.project import Project
from diffusion_codec.codec import Codec
from diffusion_codec.evaluation import codecs, records
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.loop import train
from tests.book.conftest import project as project
from tests.book.test_book_site import small_book as small_book
from tests.book.test_book_site import write_landing
from tests.evaluation.sweeps import sweep
from tests.survival import LONG, Row, Tally, amount, duration, kill_at_random

GROUP = "kill -9 at random moments"
SEED = 9


def kill_command(
    arguments: list[str], target: Path, kills: int, finish: Callable[[], bytes]
) -> tuple[int, int, int]:
    """(kills, of which at work, survived) of a command that writes ``target``.

    After each kill the target is absent or whole, and every other time an old file lies there that must be kept whole.
    """
    source, hit, survived = Random(SEED), 0, 0
    target.unlink(missing_ok=True)
    longest = 1.2 * duration(lambda: cli.main([*arguments, "--force"]))
    whole = target.read_bytes()
    for number in range(kills):
        target.unlink(missing_ok=True)
        allowed = {whole, b"old" if number % 2 else None}
        if number % 2:
            target.write_bytes(b"old")
        hit += kill_at_random(lambda: cli.main([*arguments, "--force"]), longest, source)
        survived += (target.read_bytes() if target.exists() else None) in allowed
    assert finish() == whole
    return kills, hit, survived


def test_compress(codec: Codec, photo: Path, tmp_path: Path, tally: Tally) -> None:
    target = tmp_path / "out" / "photo.dfc"
    target.parent.mkdir()
    arguments = ["compress", str(photo), str(target), "--quality", "60"]

    def finish() -> bytes:
        with pytest.raises(SystemExit):
            cli.main([*arguments, "--force"])
        return target.read_bytes()

    tried, hit, survived = kill_command(arguments, target, amount(4, 60), finish)
    left = [path for path in target.parent.iterdir() if path != target]
    assert all(path.suffix == ".part" for path in left)
    note = "no file, the old file or the whole new one"
    tally(Row(GROUP, "compress", tried, survived, injected=hit, note=note))


def test_decompress(codec: Codec, photo: Path, tmp_path: Path, tally: Tally) -> None:
    packed, target = tmp_path / "photo.dfc", tmp_path / "out" / "back.png"
    target.parent.mkdir()
    packed.write_bytes(codec.compress(np.asarray(Image.open(photo).convert("RGB"))).data)
    arguments = ["decompress", str(packed), str(target)]

    def finish() -> bytes:
        with pytest.raises(SystemExit):
            cli.main([*arguments, "--force"])
        return target.read_bytes()

    tried, hit, survived = kill_command(arguments, target, amount(4, 50), finish)
    note = "no picture, the old one or the whole new one"
    tally(Row(GROUP, "decompress", tried, survived, injected=hit, note=note))


def campaign(
    kills: int, work: Callable[[], object], restart: Callable[[], None], finished: Callable[[], bool]
) -> tuple[int, int, int]:
    """(kills, of which at work, runs brought to their end): kill and go on until so many kills; then to the end.

    A run that is complete is checked by ``finished`` and begun anew.
    """
    source, hit, ended = Random(SEED), 0, 0
    longest = 0.7 * duration(work)
    assert finished()
    restart()
    for _ in range(kills):
        if not kill_at_random(work, longest, source):
            assert finished()
            ended += 1
            restart()
            continue
        hit += 1
    duration(work)
    assert finished()
    return kills, hit, ended + 1


def test_evaluate(tmp_path: Path, tally: Tally) -> None:
    folder, out = tmp_path / "photos", tmp_path / "result" / "r.csv"
    folder.mkdir()
    for item in datasets.load("sample", limit=4):
        Image.fromarray(item.pixels()[:48, :64]).save(folder / f"{item.id}.png")
    photos = datasets.photographs(folder)

    def work() -> None:
        jpeg = codecs.BaselineCodec(baselines.get("jpeg"))
        sweep([jpeg], photos, [1.6, 2.4], ["psnr"], out)

    def rows() -> list[tuple[str, float | None, float | None, int | None]]:
        return [(r.image, r.target_bpp, r.value, r.bytes) for r in records.read(out).records]

    sweep([codecs.BaselineCodec(baselines.get("jpeg"))], photos, [1.6, 2.4], ["psnr"], out)
    expected = sorted(rows())
    assert len(expected) == 8
    shutil.rmtree(out.parent)

    def finished() -> bool:
        return sorted(rows()) == expected

    tried, hit, ended = campaign(amount(4, 50), work, lambda: shutil.rmtree(out.parent), finished)
    note = f"{ended} runs brought to their end, each record there once"
    tally(Row(GROUP, "evaluate", tried, tried, injected=hit, note=note))


def test_training(tmp_path: Path, tally: Tally) -> None:
    torch.set_num_threads(1)
    settings = {"steps": 12, "batch_size": 2, "learning_rate": 1e-3, "crop": 64, "widths": (16, 16)}
    config = DenoiserConfig.model_validate(
        settings | {"layers_per_block": 1, "checkpoint_every": 2, "log_every": 1, "warmup_steps": 2}
    )
    latents = [torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]

    def run(out: Path) -> None:
        torch.set_num_threads(1)
        train(DenoiserRecipe(config, latents), out)

    def state(out: Path) -> str:
        digest = hashlib.sha256()
        with safe_open(out / "state.safetensors", "pt") as file:
            for name in sorted(file.keys()):
                digest.update(name.encode() + file.get_tensor(name).numpy().tobytes())
        return digest.hexdigest()

    out = tmp_path / "run"
    duration(lambda: run(tmp_path / "whole"))
    expected = state(tmp_path / "whole")

    def finished() -> bool:
        with (out / "losses.csv").open() as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        json.loads((out / "config.json").read_text())
        return steps == list(range(1, 13)) and state(out) == expected

    tried, hit, ended = campaign(amount(4, 40), lambda: run(out), lambda: shutil.rmtree(out), finished)
    note = f"{ended} runs brought to their end, weights and curves equal to an undisturbed run's"
    tally(Row(GROUP, "training", tried, tried, injected=hit, note=note))


@LONG
def test_notebooks(project: Project, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """The part of ``make book`` that runs notebooks; kernels are processes of their own and outlive the kill."""
    monkeypatch.chdir(project.root)
    result = project.stage / "figures" / "01_sums" / "sum.txt"

    def work() -> None:
        assert book_main(["run", "01"]) == 0

    def finished() -> bool:
        json.loads(project.executed("01_sums").read_text())
        return result.read_text() == "3"

    tried, hit, ended = campaign(4, work, lambda: shutil.rmtree(project.build), finished)
    note = f"{ended} runs brought to their end"
    tally(Row(GROUP, "make book: running notebooks", tried, tried, injected=hit, note=note))


@LONG
def test_site(small_book: Project, tally: Tally) -> None:
    """The part of ``make book`` that builds the site: at every moment a whole site, or none."""
    write_landing(small_book)
    html = small_book.build / "html"
    duration(lambda: builder.build(Project(small_book.root)))
    pages = {path.relative_to(html) for path in html.rglob("*.html")}
    source, hit, survived, kills = Random(SEED), 0, 0, 4
    for number in range(kills):
        page = small_book.root / "book" / "table.md"
        page.write_text(page.read_text() + f"\nBuild {number}.\n")
        hit += kill_at_random(lambda: builder.build(Project(small_book.root)), 8.0, source)
        there = {path.relative_to(html) for path in html.rglob("*.html")} if html.exists() else pages
        survived += there == pages
    builder.build(Project(small_book.root))
    assert f"Build {kills - 1}." in (html / "book" / "table.html").read_text()
    assert not list(small_book.build.glob("jupyter-book*/replaced"))
    note = "a whole site at every moment; the next build is up to date"
    tally(Row(GROUP, "make book: building the site", kills, survived, injected=hit, note=note))
