"""Files of every format version decode for ever; the command that says so finds what is wrong."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_codec import bitstream, codec_weights, conformance
from diffusion_codec.cli import main
from diffusion_codec.conformance import (
    CommandDecoder,
    Decoded,
    OwnDecoder,
    RefusedError,
    check,
    read_manifest,
)
from diffusion_codec.errors import BadInputError
from tests.conformance import second
from tests.survival import Row, Tally

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/manifest.json"))
GOLDEN = Path(__file__).parent / "1.0"
SECOND = f"{sys.executable} -m tests.conformance.second {{file}} {{weights}} {{symbols}}"


class SecondDecoder:
    """The decoder of another hand without a process of its own for each file."""

    def decode(self, file: Path, weights: Path, backbone: Path, steps: int) -> Decoded:
        try:
            return Decoded(hashlib.sha256(second.symbols(file, weights)).hexdigest(), None)
        except (BadInputError, AssertionError) as error:
            raise RefusedError(str(error)) from error


def test_every_format_version_has_golden_files() -> None:
    major, minor = bitstream.FORMAT_VERSION
    versions = [read_manifest(folder).format_version for folder in FOLDERS]
    assert [folder.name for folder in FOLDERS] == versions
    assert versions[-1] == f"{major}.{minor}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_golden_files(folder: Path, tally: Tally) -> None:
    findings = list(check(folder, OwnDecoder()))
    wrong = [finding for finding in findings if not finding.passed]
    tally(
        Row(
            "Golden files",
            f"format {folder.name}: headers, symbols exactly, pixels within tolerance; damaged files refused",
            len(findings),
            len(findings) - len(wrong),
            refused=sum(finding.check == "refused" for finding in findings),
            accepted=sum(finding.check != "refused" for finding in findings),
        )
    )
    assert wrong == []


def test_refusals_are_those_of_the_manifest() -> None:
    said = {f.file: f.detail.partition(":")[0] for f in check(GOLDEN, OwnDecoder()) if f.check == "refused"}
    assert said == {entry.file: entry.error for entry in read_manifest(GOLDEN).refused}


def test_reference_pictures_can_tell_decoders_apart() -> None:
    """Other numbers of steps and other models fall outside the tolerance."""
    manifest = read_manifest(GOLDEN)
    golden = next(g for g in manifest.files if g.file == "good/side-information.dfc")
    codec = OwnDecoder._codec(GOLDEN / golden.weights, GOLDEN / manifest.backbone)
    data = (GOLDEN / golden.file).read_bytes()
    reference = codec.decompress(data, manifest.steps).pixels
    assert reference.std() > 40
    assert conformance.difference(codec.decompress(data, 0).pixels, reference)[0] > 10
    assert conformance.difference(codec.decompress(data, 2).pixels, reference)[0] > 2 * manifest.tolerance.rms


def test_a_second_implementation_passes(tally: Tally) -> None:
    findings = list(check(GOLDEN, SecondDecoder()))
    assert [f for f in findings if f.passed is False] == []
    assert {f.check for f in findings if f.passed is None} == {"pixels"}
    shown = [f for f in findings if f.check in ("symbols", "refused")]
    tally(
        Row(
            "Golden files",
            "a second decoder, written from the book's page: symbols and refusals",
            len(shown),
            sum(f.passed is True for f in shown),
            refused=sum(f.check == "refused" for f in shown),
            accepted=sum(f.check == "symbols" for f in shown),
        )
    )


class Careless(OwnDecoder):
    """Wrong in three ways: takes damaged files, adds one to a pixel too many, loses a symbol."""

    def decode(self, file: Path, weights: Path, backbone: Path, steps: int) -> Decoded:
        try:
            right = super().decode(file, weights, backbone, steps)
        except RefusedError:
            return Decoded(None, np.zeros((1, 1, 3), np.uint8))
        assert right.pixels is not None
        if file.stem == "photo":
            raise RefusedError("not today")
        if file.stem == "hyper":
            return replace(right, symbols_sha256="0" * 64)
        if file.stem == "dither":
            return replace(
                right, pixels=(right.pixels.astype(int) - 4 * (right.pixels > 99)).astype(np.uint8)
            )
        return right if file.stem != "tall" else replace(right, pixels=right.pixels[:-1])


def test_what_a_decoder_does_wrong_is_found() -> None:
    wrong = {(f.file, f.check) for f in check(GOLDEN, Careless()) if f.passed is False}
    refused = {(entry.file, "refused") for entry in read_manifest(GOLDEN).refused}
    assert wrong == refused | {
        ("good/photo.dfc", "decodes"),
        ("good/hyper.dfc", "symbols"),
        ("good/dither.dfc", "pixels"),
        ("good/tall.dfc", "pixels"),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The golden files cut down to one good and one bad."""
    target = tmp_path / "1.0"
    shutil.copytree(GOLDEN, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest |= {"files": manifest["files"][:1], "refused": manifest["refused"][:1]}
    (target / "manifest.json").write_text(json.dumps(manifest))
    yield target
    OwnDecoder._codec.cache_clear()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["conformance", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "4 passed, 0 failed, 0 not shown by the decoder"
    code, out, _ = run(capsys, folder, "--json")
    report = json.loads(out)
    assert (code, report["passed"], report["failed"]) == (0, 4, 0)
    assert [f["check"] for f in report["findings"]] == ["header", "symbols", "pixels", "refused"]


def test_another_decoders_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder, "--decoder", SECOND)
    assert code == 0
    assert "3 passed, 0 failed, 1 not shown" in out
    code, out, _ = run(capsys, folder, "--decoder", "/bin/false")
    assert code == 1
    assert "FAILED    good/photo.dfc" in out
    assert "exit status 1: no message" in out
    code, out, _ = run(
        capsys, folder, "--decoder", "/bin/true"
    )  # reads nothing, shows nothing, refuses nothing
    assert code == 1
    assert "1 passed, 1 failed, 2 not shown" in out
    for command, words in (("nowhere/decoder", "cannot be run"), ("decoder {fille}", "may hold {file}")):
        code, out, err = run(capsys, folder, "--decoder", command)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert words in err


def test_a_late_decoder_is_stopped(folder: Path) -> None:
    findings = list(check(folder, CommandDecoder("/bin/sleep 60", timeout_s=0.01)))
    assert [f.detail for f in findings if f.check == "decodes"] == ["no answer within 0.01 s"]


def test_a_damaged_folder_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good" / "photo.dfc").write_bytes(b"other")
    code, _, err = run(capsys, folder)
    assert code == 1
    assert "photo.dfc is missing or not the golden file" in err
    (folder / "manifest.json").write_text('{"schema": 2}')
    with pytest.raises(BadInputError, match=r"manifest\.json"):
        list(check(folder, OwnDecoder()))
    code, _, err = run(capsys, tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert "tests/conformance/1.0 of the repository" in err


def test_decompress_takes_weights_by_file(tmp_path: Path) -> None:
    """The way a file of weights that no release has is read: name their file."""
    target = tmp_path / "out.png"
    command = [
        sys.executable,
        "-m",
        "diffusion_codec",
        "decompress",
        str(GOLDEN / "good/photo.dfc"),
        str(target),
    ]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "--codec-weights" in refused.stderr
    command += [
        "--codec-weights",
        str(GOLDEN / "weights/context.safetensors"),
        "--backbone",
        str(GOLDEN / "backbone"),
        "--precision",
        "float32",
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    golden = read_manifest(GOLDEN).files[0]
    assert json.loads(done.stdout)["symbols_sha256"] == golden.symbols_sha256
    rms, _ = conformance.difference(
        conformance.load_image(target).pixels, conformance.load_image(GOLDEN / golden.picture).pixels
    )
    assert rms <= read_manifest(GOLDEN).tolerance.rms


@pytest.mark.parametrize("name", ["independent", "paper-2024", "paper-2025"])
def test_embedded_weights_are_read_by_the_rules_for_strangers(name: str) -> None:
    weights = codec_weights.load(codec_weights.embedded_weights(name))
    assert isinstance(weights.latent_coder.gaussian, np.ndarray)
    assert not any(parameter.requires_grad for parameter in weights.parameter_estimation.parameters())
    assert torch.isfinite(weights.parameter_estimation.log2_step_at_lambda_1)
