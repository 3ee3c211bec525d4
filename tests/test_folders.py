"""Whole folders: every file that can be done is done, every other one says why, nothing is replaced unasked."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import bitstream, cli, folders, image_io
from diffusion_codec.backbone import model as model_module
from diffusion_codec.backbone.options import SMALL_NETWORKS
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError, OutOfMemoryError
from diffusion_codec.folders import Task
from diffusion_codec.image_io import picture_suffixes
from diffusion_codec.memory import BYTES_PER_PIXEL
from tests.test_cli import Run, StoringCodec, run
from tests.tiny import tiny_weights_file, write_tiny_backbone

__all__ = ["run"]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "inner.png").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.JPG", "c.webp")):
        pixels = np.full((24, 16 + 8 * number, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"no picture")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tasks_are_the_files_with_a_suffix_of_their_kind(album: Path, tmp_path: Path) -> None:
    found = folders.tasks(album, tmp_path / "out", picture_suffixes(), ".dfc")
    assert [(task.source.name, task.target.name) for task in found] == [
        ("a.png", "a.dfc"),
        ("b.JPG", "b.dfc"),
        ("c.webp", "c.dfc"),
    ]
    with pytest.raises(BadInputError, match=r"holds no file that ends in \.dfc"):
        folders.tasks(album, tmp_path / "out", [".dfc"], ".png")


def test_names_that_differ_in_case_alone_do_not_become_one_file(album: Path, tmp_path: Path) -> None:
    (album / "B.png").write_bytes(b"")
    found = folders.tasks(album, tmp_path, picture_suffixes(), ".dfc")
    assert [task.target.name for task in found] == ["B.png.dfc", "a.dfc", "b.JPG.dfc", "c.dfc"]


def test_files_of_one_stem_do_not_become_one_file(album: Path, tmp_path: Path) -> None:
    for name in ("a.bmp", "a.bmp.png", "a.bmp.png.webp"):
        (album / name).write_bytes(b"")
    found = folders.tasks(album, tmp_path, picture_suffixes(), ".dfc")
    assert [task.target.name for task in found] == [
        "a.bmp.dfc",
        "a.bmp.png.dfc",
        "a.bmp.png.webp.dfc",
        "a.png.dfc",
        "b.dfc",
        "c.dfc",
    ]


def test_work_overlaps_and_a_failure_is_its_own() -> None:
    todo = [Task(Path(str(i)), Path(f"{i}.out")) for i in range(4)]
    meeting = threading.Barrier(2, timeout=60)
    prepared: list[str] = []

    def work(task: Task) -> int:
        meeting.wait()  # two at a time, or this breaks
        if task.source.name == "1":
            raise BadInputError("not this one")
        if task.source.name == "2":
            raise OSError(28, "No space left on device", "2.out")
        return int(task.source.name)

    outcomes = list(folders.run(todo, work, 2, lambda: prepared.append(threading.current_thread().name)))
    assert len(prepared) == 2
    assert {o.task.source.name: (o.result, o.error) for o in outcomes} == {
        "0": (0, None),
        "1": (None, "not this one"),
        "2": (None, "'2.out': No space left on device"),
        "3": (3, None),
    }


def test_an_error_of_the_program_is_no_outcome() -> None:
    def work(task: Task) -> None:
        raise ZeroDivisionError

    todo = [Task(Path(str(i)), Path("out")) for i in range(5)]
    with pytest.raises(ZeroDivisionError):
        list(folders.run(todo, work, 1, lambda: None))


def test_workers_share_the_threads_of_torch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        folders.share_threads(2)()
        assert torch.get_num_threads() == 2
        folders.share_threads(8)()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert folders.workers(3) == 3
    assert 1 <= folders.workers() <= folders.MOST_WORKERS


def test_there_and_back(run: Run, album: Path, tmp_path: Path) -> None:
    made, back = tmp_path / "made", tmp_path / "new" / "back"
    done = run("compress", album, made, "--jobs", "2")
    assert done.code == 0
    assert (
        done.err
        == "diffusion-codec: note: left alone, as no such file or a folder: inner.png/, notes.txt (2)\n"
    )
    lines = done.out.decode().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["1/3", "2/3", "3/3"]
    assert names(made) == ["a.dfc", "b.dfc", "c.dfc"]
    assert sum("backbone" in call for call in StoringCodec.calls) == 1  # loaded once
    done = run("decompress", made, back, "--json")
    assert (done.code, names(back)) == (0, ["a.png", "b.png", "c.png"])
    objects = [json.loads(line) for line in done.out.splitlines()]
    assert {(o["source"], o["target"]) for o in objects} == {
        (str(made / f"{stem}.dfc"), str(back / f"{stem}.png")) for stem in "abc"
    }
    with Image.open(back / "a.png") as image:
        assert image.size == (16, 24)


def test_folders_inside_are_told_not_taken(run: Run, album: Path, tmp_path: Path) -> None:
    inner = album / "100CANON"
    inner.mkdir()
    (album / "a.png").rename(inner / "a.png")
    done = run("compress", album, tmp_path / "made")
    assert done.code == 0
    assert "a folder: 100CANON/, inner.png/, notes.txt (3)" in done.err
    done = run("compress", album.parent, tmp_path / "none")
    assert done.code == 1
    assert "the suffix of a picture; folders inside it are not looked into" in done.err


def test_failures_are_json_too(run: Run, album: Path, tmp_path: Path) -> None:
    (album / "b.JPG").write_bytes(b"")
    done = run("compress", album, tmp_path / "made", "--json")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [set(one) for one in told if "error" in one] == [{"source", "error"}]
    assert len(told) == 3


def test_one_line_for_each_that_failed_and_the_others_go_on(run: Run, album: Path, tmp_path: Path) -> None:
    (album / "b.JPG").write_bytes(b"not a picture")
    made = tmp_path / "made"
    made.mkdir()
    (made / "c.dfc").write_bytes(b"precious")
    done = run("compress", album, made)
    assert done.code == 1
    assert len(done.out.splitlines()) == 1
    errors = sorted(done.err.splitlines())
    assert len(errors) == 4
    assert "left alone, as no such file or a folder: inner.png/, notes.txt (2)" in errors[3]
    assert "b.JPG' is not a picture" in errors[0]
    assert "c.webp': " in errors[1]
    assert "c.dfc' exists already" in errors[1]
    assert "2 of 3 files failed" in errors[2]
    assert (made / "c.dfc").read_bytes() == b"precious"
    assert run("compress", album, made, "--force").code == 1  # b is still no picture
    assert bitstream.read((made / "c.dfc").read_bytes()).header.width == 32
    assert names(made) == ["a.dfc", "c.dfc"]


def test_a_folder_needs_a_folder(run: Run, album: Path, tmp_path: Path) -> None:
    run("compress", album, "-").refused("is a directory, expected a file")
    run("compress", album, tmp_path / "all.dfc").refused("name a directory as OUT")
    run("compress", tmp_path, tmp_path / "out").refused("holds no file that ends in")
    (tmp_path / "taken").write_bytes(b"")
    run("compress", album, tmp_path / "taken").refused("taken")
    assert names(tmp_path) == ["album", "taken"]
    assert StoringCodec.calls == []


def test_files_of_a_folder_are_those_of_single_calls(tmp_path: Path) -> None:
    """The real codec, two at once: not a byte and not a pixel depends on what else goes on."""
    codec = Codec.from_pretrained(
        write_tiny_backbone(tmp_path / "tiny"), tiny_weights_file(tmp_path / "codec.safetensors")
    )
    pictures = [np.random.default_rng(i).integers(0, 256, (40, 56, 3), np.uint8) for i in range(6)]
    alone = [codec.compress(pixels).data for pixels in pictures]
    shown = [codec.decompress(data).pixels for data in alone]
    todo = [Task(Path(str(i)), Path(str(i))) for i in range(6)]

    def work(task: Task) -> tuple[bytes, np.ndarray]:
        data = codec.compress(pictures[int(task.source.name)]).data
        return data, codec.decompress(data).pixels

    for outcome in folders.run(todo, work, 2, lambda: None):
        number = int(outcome.task.source.name)
        assert outcome.result is not None
        assert outcome.result[0] == alone[number]
        assert np.array_equal(outcome.result[1], shown[number])


def test_fewer_files_at_once_where_networks_move_or_memory_is_bounded(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--backbone", write_tiny_backbone(tmp_path / "tiny")]
    model += ["--codec-weights", tiny_weights_file(tmp_path / "codec.safetensors")]
    counts: list[int] = []
    work = folders.run

    def spy(todo: Any, one: Any, count: int, prepare: Any) -> Any:
        counts.append(count)
        return work(todo, one, count, prepare)

    monkeypatch.setattr(folders, "run", spy)
    monkeypatch.setattr(model_module, "held_memory", lambda: 2**30)
    two = 2 * (SMALL_NETWORKS.least_memory + BYTES_PER_PIXEL * 32 * 24)
    for options in ([], ["--offload"], ["--max-memory", 2**30 + two], ["--max-memory", 2**30 + two - 1]):
        for command, source, target in (
            ("compress", album, "made"),
            ("decompress", tmp_path / "made", "back"),
        ):
            arguments = [command, source, tmp_path / target, "--force", "--jobs", 3, *model, *options]
            with pytest.raises(SystemExit) as exit_:
                cli.main([str(argument) for argument in arguments])
            assert exit_.value.code == 0
    assert counts == [3, 3, 1, 1, 2, 2, 1, 1]


def test_a_file_that_cannot_be_read_takes_no_share_of_the_memory(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "b.JPG").write_bytes(b"not a picture")
    (album / "d.dfc").write_bytes(b"not a file")
    names = ("a.png", "b.JPG", "c.webp", "d.dfc", "gone.png")
    sizes = [cli._size(Task(album / name, album)) for name in names]
    assert sizes == [(16, 24), (0, 0), (32, 24), (0, 0), (0, 0)]

    def fails(source: str) -> tuple[int, int]:
        raise OutOfMemoryError(source)

    monkeypatch.setattr(image_io, "picture_size", fails)
    assert cli._size(Task(album / "a.png", album)) == (0, 0)
