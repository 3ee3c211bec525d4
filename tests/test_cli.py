"""The command line around a stand-in codec that stores the pixels themselves; all else is real."""

import dataclasses
import hashlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from diffusion_codec import bitstream, cli
from diffusion_codec.backbone.options import RunOptions
from diffusion_codec.bitstream import DfcFile, Header
from diffusion_codec.errors import BadInputError
from diffusion_codec.image_io import load_image

Pixels = npt.NDArray[np.uint8]
Run = Callable[..., "Result"]


@dataclasses.dataclass
class Coded:
    data: bytes
    symbols_sha256: str
    seconds: dict[str, float]


@dataclasses.dataclass
class Decoded:
    pixels: Pixels
    grayscale: bool
    symbols_sha256: str
    seconds: dict[str, float]


class StoringCodec:
    """Stands where the codec stands; keeps the pixels in the latent stream."""

    calls: ClassVar[list[dict[str, Any]]] = []
    backbone = types.SimpleNamespace(share=lambda wanted, sizes: wanted)

    @classmethod
    def from_pretrained(cls, backbone: str, weights: str, device: str, run: RunOptions) -> "StoringCodec":
        options = {"run": run} if run != RunOptions("auto") else {}
        cls.calls.append({"backbone": backbone, "device": device} | options)
        return cls()

    def compress(self, pixels: Pixels, quality: float, grayscale: bool) -> Coded:
        self.calls.append({"quality": quality, "grayscale": grayscale})
        height, width, _ = pixels.shape
        header = Header(width, height, b"test", 100, (0, 0, 0, 0), (0, 0, 0, 0), grayscale=grayscale)
        latent = zlib.compress(pixels.tobytes())
        data = bitstream.write(DfcFile(header, b"", latent))
        return Coded(data, hashlib.sha256(latent).hexdigest(), {"encode": 0.25})

    def compress_to_size(self, pixels: Pixels, max_bytes: int, grayscale: bool) -> Coded:
        self.calls.append({"max_bytes": max_bytes})
        coded = self.compress(pixels, quality=0, grayscale=grayscale)
        if len(coded.data) > max_bytes:
            raise BadInputError(f"{max_bytes} bytes are out of reach:\nthe least is {len(coded.data)}")
        return coded

    def decompress(self, data: bytes, steps: int | None = None, fidelity: float | None = None) -> Decoded:
        self.calls.append({"steps": steps} | ({} if fidelity is None else {"fidelity": fidelity}))
        file = bitstream.read(data)
        shape = (file.header.height, file.header.width, 3)
        pixels = np.frombuffer(zlib.decompress(file.latent), np.uint8).reshape(shape)
        sha256 = hashlib.sha256(file.latent).hexdigest()
        return Decoded(pixels, file.header.grayscale, sha256, {"decode": 0.5})


def stand_in_module() -> types.ModuleType:
    module = types.ModuleType("diffusion_codec.codec")
    module.Codec = StoringCodec  # type: ignore[attr-defined]
    return module


@dataclasses.dataclass
class Result:
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> dict[str, Any]:
        parsed = json.loads(self.out)
        assert isinstance(parsed, dict)
        return parsed

    def refused(self, message: str) -> None:
        """Exit code 1 and exactly one line on standard error, with the message."""
        assert self.code == 1
        assert self.out == b""
        assert re.fullmatch(rf"diffusion-codec: error: [^\n]*{message}[^\n]*\n", self.err), self.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    monkeypatch.setitem(sys.modules, "diffusion_codec.codec", stand_in_module())
    StoringCodec.calls.clear()

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Result(int(exit_.value.code or 0), out, err.decode())

    return run


SUBPROCESS = """
import sys
sys.path.insert(0, {folder!r})
import test_cli
sys.modules["diffusion_codec.codec"] = test_cli.stand_in_module()
from diffusion_codec.cli import main
main()
"""


def command(*arguments: object) -> list[str]:
    """The command line as a process of its own, with the stand-in codec."""
    code = SUBPROCESS.format(folder=str(Path(__file__).parent))
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_there_and_back(run: Run, photo: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "photo.dfc", tmp_path / "back.png"
    there = run("compress", photo, packed)
    assert (there.code, there.err) == (0, "")
    assert re.fullmatch(
        rf"{photo} -> {packed}: 64 x 48 pixels, \d+ bytes, [\d.]+ bits per pixel, [\d.]+ s\n",
        there.out.decode(),
    )
    again = run("decompress", packed, back)
    assert (again.code, again.err) == (0, "")
    np.testing.assert_array_equal(load_image(back).pixels, load_image(photo).pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.png", "photo.dfc", "photo.png"]


def test_json(run: Run, photo: Path, tmp_path: Path) -> None:
    packed = tmp_path / "photo.dfc"
    there = run("compress", photo, packed, "--json")
    back = run("decompress", packed, tmp_path / "back.png", "--json")
    size = packed.stat().st_size
    for result, stage in ((there, "encode"), (back, "decode")):
        report = result.json
        assert list(report) == ["bytes", "bpp", "width", "height", "ledger", "symbols_sha256", "seconds"]
        assert (report["bytes"], report["width"], report["height"]) == (size, 64, 48)
        assert report["bpp"] == pytest.approx(8 * size / (64 * 48))
        assert sum(report["ledger"].values()) == size
        assert list(report["seconds"]) == ["read", "load", stage, "write"]
        assert all(seconds >= 0 for seconds in report["seconds"].values())
    assert there.json["symbols_sha256"] == back.json["symbols_sha256"]


def test_options_reach_the_codec(run: Run, photo: Path, tmp_path: Path) -> None:
    packed = tmp_path / "photo.dfc"
    run("compress", photo, packed)
    run("compress", photo, packed, "-f", "--quality", "12.5", "--backbone", tmp_path, "--device", "cuda:1")
    run("compress", photo, packed, "--force", "--max-bytes", "100000")
    run("compress", photo, packed, "--force", "--bpp", "30.007")
    run("decompress", packed, tmp_path / "back.png", "--steps", "7", "--precision", "bfloat16", "--offload")
    assert StoringCodec.calls == [
        {"backbone": "mini", "device": "cpu"},
        {"quality": 50.0, "grayscale": False},
        {"backbone": str(tmp_path), "device": "cuda:1"},
        {"quality": 12.5, "grayscale": False},
        {"backbone": "mini", "device": "cpu"},
        {"max_bytes": 100000},
        {"quality": 0, "grayscale": False},
        {"backbone": "mini", "device": "cpu"},
        {"max_bytes": 11522},  # floor(30.007 * 64 * 48 / 8)
        {"quality": 0, "grayscale": False},
        {"backbone": "mini", "device": "cpu", "run": RunOptions("bfloat16", offload=True)},
        {"steps": 7},
    ]


def test_grey_stays_grey(run: Run, tmp_path: Path) -> None:
    Image.new("L", (5, 3), 77).save(tmp_path / "grey.png")
    run("compress", tmp_path / "grey.png", tmp_path / "grey.dfc")
    assert run("info", tmp_path / "grey.dfc", "--json").json["grayscale"] is True
    run("decompress", tmp_path / "grey.dfc", tmp_path / "back.png")
    with Image.open(tmp_path / "back.png") as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (5, 3), 77)


def test_standard_streams(run: Run, photo: Path, tmp_path: Path) -> None:
    there = run("compress", "-", "-", "--json", stdin=photo.read_bytes())
    assert there.code == 0
    assert json.loads(there.err)["bytes"] == len(there.out)
    back = run("decompress", "-", "-", stdin=there.out)
    assert back.code == 0
    np.testing.assert_array_equal(load_image(back.out).pixels, load_image(photo).pixels)
    assert back.out.startswith(b"\x89PNG")
    assert back.err.startswith("- -> -: 64 x 48 pixels")
    shown = run("info", "-", stdin=there.out)
    assert shown.out.startswith(b"standard input\n")


def test_notes_go_to_standard_error(run: Run, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    result = run("compress", tmp_path / "moving.gif", tmp_path / "out.dfc")
    assert result.code == 0
    assert result.err.endswith("moving.gif': only the first of its frames is used\n")


def test_info(run: Run, small_dfc: DfcFile, tmp_path: Path) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(bitstream.write(small_dfc))
    assert run("info", path, "--json").json == {
        "format_version": "1.0",
        "bytes": 86,
        "bpp": 86 * 8 / (768 * 512),
        "width": 768,
        "height": 512,
        "grayscale": True,
        "generative": True,
        "weights_fingerprint": "01234567",
        "timestep": 137,
        "alpha": [-16, 0, 3, 127],
        "beta": [-128, 0, 5, 127],
        "dither_seed": 0xBEEF,
        "ledger": {"header": 16, "side_information": 12, "hyper": 13, "latent": 45},
    }
    text = run("info", path).out.decode()
    assert "768 x 512 pixels, grey" in text
    assert re.search(r"scale alpha +0\.500 1\.000 1\.139 245\.146\n", text)
    assert re.search(r"side information +12 +14\.0% +0\.00024\n", text)
    assert re.search(r"total +86 +100\.0% +0\.00175\n", text)
    assert "\nGenerative decoder: not for evidence." in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nowhere.png' does not exist"),
        (b"", "is empty"),
        (b"no picture at all", "not a picture"),
        (b"\xc4FC\n" + bytes(40), "is a .dfc file"),
    ],
)
def test_bad_pictures(run: Run, tmp_path: Path, content: bytes | None, message: str) -> None:
    source = tmp_path / "nowhere.png"
    if content is not None:
        source.write_bytes(content)
    before = set(tmp_path.iterdir())
    run("compress", source, tmp_path / "out.dfc").refused(message)
    assert set(tmp_path.iterdir()) == before
    assert StoringCodec.calls == []


def test_truncated_picture_and_directory(run: Run, photo: Path, tmp_path: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-200])
    run("compress", photo, tmp_path / "out.dfc").refused("truncated or damaged")
    run("compress", tmp_path, tmp_path / "out.dfc").refused("is a directory, expected a file")
    run("decompress", tmp_path, tmp_path / "out.png").refused("is a directory, expected a file")
    run("info", tmp_path).refused("is a directory, expected a file")
    assert list(tmp_path.iterdir()) == [photo]


def test_what_pillow_logs_is_not_shown(photo: Path, tmp_path: Path) -> None:
    """A TIFF of 2048 samples per pixel: Pillow logs an error before it raises one."""
    tiff = tmp_path / "odd.tif"
    Image.open(photo).save(tiff)
    samples_per_pixel = bytes.fromhex("1501 0300 01000000")
    data = tiff.read_bytes()
    at = data.index(samples_per_pixel) + len(samples_per_pixel)
    tiff.write_bytes(data[:at] + b"\x00\x08" + data[at + 2 :])
    done = subprocess.run(command("compress", tiff, tmp_path / "out"), capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_an_unreadable_file(run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    run("compress", photo, tmp_path / "out.dfc").refused("photo.png' cannot be read: permission denied")
    run("info", photo).refused("permission denied")


def test_bad_dfc_files_are_refused_before_the_model_is_loaded(
    run: Run, photo: Path, tmp_path: Path, small_dfc: DfcFile
) -> None:
    good = bitstream.write(small_dfc)
    huge = dataclasses.replace(small_dfc.header, width=2**31, height=2**31)
    cases = {
        good[:50]: "cut short",
        good[:60] + b"?" + good[61:]: "damaged",
        good[:4] + b"\x40" + good[5:]: "version 4.0",
        good + b"more": "4 bytes follow",
        bitstream.write(DfcFile(huge, b"", b"")): "2147483648 x 2147483648 pixels",
        photo.read_bytes(): "not a .dfc file",
        b"": "is empty",
    }
    before = set(tmp_path.iterdir())
    for data, message in cases.items():
        run("decompress", "-", tmp_path / "out.png", stdin=data).refused(message)
        run("info", "-", stdin=data).refused(message)
    assert set(tmp_path.iterdir()) == before
    assert StoringCodec.calls == []


def test_an_unreachable_rate_is_one_line(run: Run, photo: Path, tmp_path: Path) -> None:
    run("compress", photo, tmp_path / "out.dfc", "--max-bytes", "40").refused(
        r"40 bytes are out of reach: the least is \d+"
    )
    run("compress", photo, tmp_path / "out.dfc", "--bpp", "1e-9").refused("0 bytes are out of reach")
    assert list(tmp_path.iterdir()) == [photo]


def test_targets_are_checked_before_the_work(run: Run, photo: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"precious")
    run("compress", photo, kept).refused("exists already.*--force")
    run("decompress", photo, kept).refused("exists already.*--force")
    run("compress", photo, tmp_path).refused("is a directory")
    run("compress", photo, tmp_path / "no" / "out.dfc").refused("does not exist: create it first")
    run("decompress", photo, tmp_path / "out.docx").refused("can be written: .png")
    assert kept.read_bytes() == b"precious"
    assert StoringCodec.calls == []


def test_a_name_that_the_terminal_cannot_show_is_told_in_escapes(tmp_path: Path) -> None:
    done = subprocess.run(
        command("info", tmp_path / "日本.dfc"),
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1:strict"},
    )
    assert done.returncode == 1
    assert rb"\u65e5\u672c.dfc" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk(run: Run, photo: Path, tmp_path: Path) -> None:
    run("compress", photo, "/dev/full").refused("'/dev/full' could not be written: No space left on device")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("compress", photo, "-"), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"diffusion-codec: error: standard output could not be written: No space")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ('"$@" info - <&-', "standard input is closed"),
        ('"$@" decompress - - <&-', "standard input is closed"),
        ('"$@" compress photo.png - >&-', "standard output is closed"),
    ],
)
def test_a_closed_stream_is_one_line(photo: Path, shell: str, message: str) -> None:
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command()], capture_output=True, text=True, check=False, cwd=photo.parent
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"diffusion-codec: error: {message}[^\n]*\n", done.stderr), done.stderr


def test_a_closed_standard_error_hinders_nothing(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert run("compress", photo, photo.with_suffix(".dfc")).code == 0


def test_more_memory_than_there_is_numbers_for(run: Run, photo: Path) -> None:
    run("compress", photo, photo.with_suffix(".dfc"), "--max-memory", f"{'9' * 400}G").refused(
        "no machine has so much memory"
    )


def test_a_file_is_refined_within_what_was_asked_for(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def refine(
        codec: Any,
        pixels: Pixels,
        file: Coded,
        steps: int,
        max_bytes: int | None,
        tell: Callable[[int], None],
    ) -> Coded:
        tell(1)
        asked.append((pixels.shape, steps, max_bytes))
        return dataclasses.replace(file, seconds=file.seconds | {"refine": 2.5})

    module = types.ModuleType("diffusion_codec.refinement")
    module.refine = refine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffusion_codec.refinement", module)
    shape, out = load_image(str(photo)).pixels.shape, photo.with_suffix(".dfc")
    done = run("compress", photo, out, "--refine", 7, "--max-bytes", 10**6, "--json")
    assert done.code == 0
    assert done.json["seconds"]["refine"] == 2.5
    assert run("compress", photo, out, "-f", "--refine", 3, "--quality", 20).code == 0
    assert run("compress", photo, out, "-f").code == 0
    assert asked == [(shape, 7, 10**6), (shape, 3, None)]


@pytest.mark.parametrize(
    "options", [["--refine", "0"], ["--refine", "4", "--max-memory", "2G"], ["--refine", "4", "--offload"]]
)
def test_refinement_that_cannot_be_is_wrong_usage(run: Run, photo: Path, options: list[str]) -> None:
    out = photo.with_suffix(".dfc")
    refused = run("compress", photo, out, *options)
    assert refused.code == 2
    assert "--refine" in refused.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "a.png"], "Missing argument"),
        (["explode"], "No such command"),
        (["compress", "a.png", "b.dfc", "--quality", "101"], "expected 0 to 100"),
        (["compress", "a.png", "b.dfc", "--quality", "nan"], "expected 0 to 100"),
        (["compress", "a.png", "b.dfc", "--quality", "high"], "valid"),
        (["compress", "a.png", "b.dfc", "--bpp", "0"], "expected bits per pixel"),
        (["compress", "a.png", "b.dfc", "--bpp", "inf"], "expected bits per pixel"),
        (["compress", "a.png", "b.dfc", "--bpp", "1e308"], "expected bits per pixel"),
        (["compress", "a.png", "b.dfc", "--max-bytes", "0"], "max-bytes"),
        (["compress", "a.png", "b.dfc", "--bpp", "1", "--quality", "5"], "exclude each other"),
        (["decompress", "a.dfc", "b.png", "--steps", "-1"], "steps"),
        (["compress", __file__, __file__, "--force"], "same file"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == b""
    assert message in result.err
    assert "Traceback" not in result.err


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.decode() == "diffusion-codec 0.1.0 (file format 1.0)\n"
    for arguments in (["--help"], ["compress", "-h"]):
        result = run(*arguments)
        assert result.code == 0
        assert b"Usage: diffusion-codec" in result.out


def test_an_interruption_leaves_nothing(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StoringCodec, "compress", interrupt)
    result = run("compress", photo, tmp_path / "out.dfc")
    assert (result.code, result.out, result.err) == (130, b"", "")
    assert list(tmp_path.iterdir()) == [photo]


def test_too_little_memory_is_one_line(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(StoringCodec, "compress", exhaust)
    run("compress", photo, "/dev/null").refused("not enough memory")


def test_help_and_info_import_nothing_heavy(tmp_path: Path, small_dfc: DfcFile) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(bitstream.write(small_dfc))
    code = (
        "import sys\nfrom diffusion_codec.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'diffusers', 'numpy', 'PIL', 'rich', 'pydantic'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)"
    )
    for arguments in (["--help"], ["--version"], ["info", str(path)], ["compress", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        # Typer checks types with pydantic, which takes longer than all else of info
        allowed = ["['pydantic']\n", "[]\n"] if arguments[0] in ("--version", "compress") else ["[]\n"]
        assert done.stderr in allowed
        assert done.stdout


def test_info_is_the_same_with_and_without_typer(run: Run, tmp_path: Path, small_dfc: DfcFile) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(bitstream.write(small_dfc))
    for plain, parsed in (
        (["info", path], ["info", "--", path]),
        (["info", path, "--json"], ["info", "--json", path]),
    ):
        assert run(*plain) == run(*parsed)
    assert run("info", "-", stdin=path.read_bytes()).code == 0
    assert run("info").code == run("info", "--jsn", path).code == run("info", path, path).code == 2
    assert b"Usage" in run("info", "--help").out


def test_python_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_codec", "info", "nowhere.dfc"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == "diffusion-codec: error: 'nowhere.dfc' does not exist: check the name\n"


def test_groups_are_imported_when_used(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_group.py").write_text(
        "import typer\napp = typer.Typer()\n"
        "@app.command()\ndef codec(size: int = 3) -> None:\n    typer.echo(f'size {size}')\n"
        "@app.command()\ndef other() -> None:\n    raise ValueError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "_lazy_groups", {})
    monkeypatch.setattr(cli.app, "registered_groups", list(cli.app.registered_groups))
    cli.add_lazy_group("sample", "sample_group:app", "A group for a test.")
    assert re.search(rb"sample +A group for a test\.", run("--help").out)
    assert "sample_group" not in sys.modules
    assert run("sample", "codec", "--size", "5").out == b"size 5\n"
    assert b"Usage: diffusion-codec sample codec" in run("sample", "codec", "--help").out
    del sys.modules["sample_group"]


@pytest.mark.parametrize(("group", "extra"), [("audit", "evaluation"), ("study", "study")])
def test_a_package_that_is_missing_is_one_line_with_its_extra(
    group: str, extra: str, tmp_path: Path, small_dfc: DfcFile
) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(bitstream.write(small_dfc))
    code = "import sys; sys.modules['pandas'] = None; from diffusion_codec.cli import main; main()"
    arguments = {"audit": ["audit", str(path)], "study": ["study", "observers"]}[group]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"diffusion-codec: error: {group} needs pandas, which is not installed: "
        f"in the project's folder, pip install '.[{extra}]'\n"
    )


def test_a_module_of_our_own_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusion_codec.audit.cli", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["audit", "a.dfc"])


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work shows a bar on a terminal, quick work and a redirected standard error show none."""

    class Timer:
        def __init__(self, delay: float, action: Callable[[], None]) -> None:
            assert delay == 2
            self.action = action

        def start(self) -> None:
            if long_work:
                self.action()

        def cancel(self) -> None: ...

        def join(self) -> None: ...

    def shown(terminal: bool) -> str:
        reader, writer = pty.openpty()
        with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream if terminal else io.StringIO())
            patch.setattr(threading, "Timer", Timer)
            patch.setenv("TERM", "xterm")
            with cli._progress(2) as show:
                show("thinking hard")
            stream.write("|")
            stream.flush()
            text = b""
            while not text.endswith(b"|"):  # a terminal hands over what it has so far
                text += os.read(reader, 65536)
        os.close(reader)
        return text.decode()

    long_work = True
    assert "thinking hard" in shown(terminal=True)
    assert shown(terminal=False) == "|"
    long_work = False
    assert shown(terminal=True) == "|"


def test_there_and_back_through_the_real_codec(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Random models of the real classes: each process sees the file only and reports the same symbols."""
    from diffusion_codec import codec_weights
    from tests.tiny import tiny_weights_file, write_tiny_backbone

    weights = tiny_weights_file(tmp_path / "weights.safetensors")
    monkeypatch.setattr(codec_weights, "embedded_weights", lambda name: weights)
    options = ["--backbone", str(write_tiny_backbone(tmp_path / "backbone")), "--json"]
    packed, back = str(tmp_path / "photo.dfc"), str(tmp_path / "back.png")
    reports = []
    for arguments in (["compress", str(photo), packed], ["decompress", packed, back, "--steps", "2"]):
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments, *options])
        out, err = capfdbinary.readouterr()
        assert exit_.value.code == 0, err
        reports.append(json.loads(out))
    assert reports[0]["symbols_sha256"] == reports[1]["symbols_sha256"]
    assert reports[0]["bytes"] == sum(reports[1]["ledger"].values()) == Path(packed).stat().st_size
    assert set(reports[1]["seconds"]) >= {"read", "load", "write"}
    assert load_image(back).pixels.shape == (48, 64, 3)
