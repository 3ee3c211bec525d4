"""``diffusion-codec conformance DIR``: does a decoder read the golden files as it must?

A folder of golden files has a ``manifest.json`` (:class:`Manifest`), the ``.dfc`` files it lists, the codec weights and
the small backbone they are decoded with. Symbols must agree exactly (SHA-256 of the integers, little-endian int32,
channel by channel, row by row); pixels within the stored root mean square and peak error; files listed under
``refused`` must be refused. The decoder under test is this package, or any program that a command line can start.
"""

import hashlib
import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
import typer
from pydantic import Field, ValidationError

from diffusion_codec import bitstream, codec_weights
from diffusion_codec.backbone import Backbone
from diffusion_codec.closed import Closed
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError
from diffusion_codec.image_io import load_image

Pixels = npt.NDArray[np.uint8]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PLACEHOLDERS = ("file", "weights", "backbone", "steps", "symbols", "picture")


class Tolerance(Closed):
    """Largest allowed difference of 8-bit pixels: root of the mean square, and of any single value."""

    rms: float
    peak: int


class Golden(Closed):
    """A file every decoder of the format must read.

    ``header``: fields as ``diffusion-codec info --json`` names them. ``symbols``: shape of the latent.
    ``weights`` and ``picture`` (the reference pixels, a PNG) are paths in the folder.
    """

    file: str
    sha256: Sha256
    about: str
    weights: str
    header: dict[str, int | bool | str | list[int] | None]
    ledger: dict[str, int]
    symbols: tuple[int, int, int]
    symbols_sha256: Sha256
    picture: str


class Refused(Closed):
    """A file every decoder must refuse; ``error`` is what this package raises."""

    file: str
    sha256: Sha256
    about: str
    weights: str
    error: str


class Manifest(Closed):
    """What is expected of a decoder of one format version; ``steps`` are DDIM steps."""

    schema_: Literal[1] = Field(alias="schema")
    format_version: str
    backbone: str
    steps: int
    tolerance: Tolerance
    files: tuple[Golden, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of a file; None where it does not show it."""

    symbols_sha256: str | None
    pixels: Pixels | None


@dataclass(frozen=True)
class Finding:
    """One check of one file; ``passed`` is None where the decoder does not show what is to be checked."""

    file: str
    check: str
    passed: bool | None
    detail: str


class RefusedError(BadInputError):
    """The decoder under test refused a file, with the words it used."""


class Decoder(Protocol):
    """A decoder under test."""

    def decode(self, file: Path, weights: Path, backbone: Path, steps: int) -> Decoded:
        """Decode one file; RefusedError if it is refused."""


class OwnDecoder:
    """This package."""

    @staticmethod
    @cache
    def _codec(weights: Path, backbone: Path) -> Codec:
        return Codec(Backbone.from_pretrained(backbone), codec_weights.load(weights))

    def decode(self, file: Path, weights: Path, backbone: Path, steps: int) -> Decoded:
        """Decode one file; RefusedError names the error's class."""
        codec = self._codec(weights, backbone)
        try:
            result = codec.decompress(file.read_bytes(), steps)
        except BadInputError as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        return Decoded(result.symbols_sha256, result.pixels)


@dataclass(frozen=True)
class CommandDecoder:
    """Any program: ``template`` is its command line with ``{file}``, ``{weights}`` and so on where paths belong.

    It writes the integers to ``{symbols}`` (int32, little-endian) and a picture to ``{picture}`` (PNG), one of them
    at least, and ends with a status other than 0 for a file it refuses.
    """

    template: str
    timeout_s: float = 300.0

    def decode(self, file: Path, weights: Path, backbone: Path, steps: int) -> Decoded:
        """Decode one file; RefusedError for any exit status but 0, BadInputError for a template that cannot be."""
        with tempfile.TemporaryDirectory() as folder:
            symbols, picture = Path(folder) / "symbols.bin", Path(folder) / "picture.png"
            values = dict(zip(PLACEHOLDERS, (file, weights, backbone, steps, symbols, picture), strict=True))
            try:
                command = [part.format_map(values) for part in shlex.split(self.template)]
                done = subprocess.run(command, capture_output=True, timeout=self.timeout_s, check=False)
            except (KeyError, IndexError, ValueError, OSError) as error:
                known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise BadInputError(
                    f"the decoder's command cannot be run ({error}); it may hold {known}"
                ) from error
            except subprocess.TimeoutExpired as error:
                raise RefusedError(f"no answer within {self.timeout_s:g} s") from error
            if done.returncode:
                words = done.stderr.decode(errors="replace").split() or ["no message"]
                raise RefusedError(f"exit status {done.returncode}: {' '.join(words)[-200:]}")
            return Decoded(
                hashlib.sha256(symbols.read_bytes()).hexdigest() if symbols.exists() else None,
                load_image(picture).pixels if picture.exists() else None,
            )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of golden files; BadInputError if it is missing or not one."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read ({error.strerror}); name a folder of golden files, such as "
            "tests/conformance/1.0 of the repository"
        ) from error
    except ValidationError as error:
        raise BadInputError(f"{path}: {error}") from error


def check(folder: Path, decoder: Decoder) -> Iterator[Finding]:
    """All checks of a folder, one by one. Raises BadInputError for a folder that is damaged itself."""
    manifest = read_manifest(folder)
    backbone = folder / manifest.backbone
    for golden in manifest.files:
        path = _whole(folder, golden)
        yield _check_header(golden, path.read_bytes())
        try:
            decoded = decoder.decode(path, folder / golden.weights, backbone, manifest.steps)
        except RefusedError as error:
            yield Finding(golden.file, "decodes", False, str(error))
            continue
        yield _check_symbols(golden, decoded)
        yield _check_pixels(golden, decoded, load_image(folder / golden.picture).pixels, manifest.tolerance)
    for refused in manifest.refused:
        path = _whole(folder, refused)
        try:
            decoder.decode(path, folder / refused.weights, backbone, manifest.steps)
        except RefusedError as error:
            yield Finding(refused.file, "refused", True, str(error))
        else:
            yield Finding(refused.file, "refused", False, f"was decoded: {refused.about}")


def difference(ours: Pixels, reference: Pixels) -> tuple[float, int]:
    """Root mean square and peak of the difference, in 8-bit levels."""
    error = ours.astype(np.int64) - reference
    return float(np.sqrt(np.mean(error**2))), int(np.abs(error).max())


def _whole(folder: Path, entry: Golden | Refused) -> Path:
    path = folder / entry.file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise BadInputError(f"{path} is missing or not the golden file: fetch the folder again")
    return path


def _check_header(golden: Golden, data: bytes) -> Finding:
    """This package's reading of the container, so that the manifest itself is checked with each run."""
    file = bitstream.read(data)
    same = bitstream.header_fields(file.header) == golden.header and bitstream.ledger(file) == golden.ledger
    return Finding(golden.file, "header", same, golden.about)


def _check_symbols(golden: Golden, decoded: Decoded) -> Finding:
    found = decoded.symbols_sha256
    if found is None:
        return Finding(golden.file, "symbols", None, "the decoder does not show them")
    return Finding(
        golden.file, "symbols", found == golden.symbols_sha256, f"{golden.symbols}, sha256 {found[:16]}"
    )


def _check_pixels(golden: Golden, decoded: Decoded, reference: Pixels, tolerance: Tolerance) -> Finding:
    if decoded.pixels is None:
        return Finding(golden.file, "pixels", None, "the decoder does not show them")
    if decoded.pixels.shape != reference.shape:
        return Finding(golden.file, "pixels", False, f"{decoded.pixels.shape}, expected {reference.shape}")
    rms, peak = difference(decoded.pixels, reference)
    passed = rms <= tolerance.rms and peak <= tolerance.peak
    return Finding(golden.file, "pixels", passed, f"rms {rms:.3f}, peak {peak}")


app = typer.Typer(add_completion=False)


@app.command()
def conformance(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with manifest.json and golden files.")
    ],
    decoder: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Another decoder's command line; {file} {weights} {backbone} {steps} are filled in, it writes "
            "{symbols} (int32, little-endian) or {picture} (PNG) or both. Default: this package.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check a decoder against golden files: symbols exactly, pixels within tolerance, damaged files refused.

    Exit code 0 if all that the decoder shows is right, else 1.
    """
    findings = list(check(folder, OwnDecoder() if decoder is None else CommandDecoder(decoder)))
    passed, failed, hidden = (sum(f.passed is state for f in findings) for state in (True, False, None))
    if as_json:
        summary = {"passed": passed, "failed": failed, "not_shown": hidden}
        typer.echo(json.dumps(summary | {"findings": [asdict(f) for f in findings]}))
    else:
        words = {True: "ok", False: "FAILED", None: "not shown"}
        for finding in findings:
            typer.echo(f"{words[finding.passed]:<10}{finding.file:<28}{finding.check:<9}{finding.detail}")
        typer.echo(f"{passed} passed, {failed} failed, {hidden} not shown by the decoder")
    if failed or not passed:
        raise typer.Exit(1)
