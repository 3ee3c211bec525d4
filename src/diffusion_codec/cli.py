"""The command line: ``diffusion-codec compress``, ``decompress`` and ``info``.

Exit codes: 0 done, 1 bad data or an unwritable result (one line on standard error), 2 wrong usage, 130
interrupted. Nothing heavy is imported before a command needs it; a part of the package adds its own commands
with :func:`add_lazy_group`.
"""

import io
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from diffusion_codec import __version__, bitstream
from diffusion_codec.errors import BadInputError, DiffusionCodecError, how_to_install, reports_memory
from diffusion_codec.files import STANDARD_STREAM, check_target, describe, read_bytes, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diffusion_codec.codec import Codec, Compressed
    from diffusion_codec.folders import Task
    from diffusion_codec.image_io import Picture

    Loader = Callable[["_Job"], Codec]
    Coded = tuple[bytes, str]  # the .dfc file and the SHA-256 of its symbols
    Work = Callable[["_Job", Loader], Coded]

PROGRAM = "diffusion-codec"
DEFAULT_QUALITY = 50.0
MOST_BPP = 1000
"""Far above any file of this codec, the smallest pictures' included."""
PROGRESS_AFTER_SECONDS = 2.0
GENERATIVE_NOTICE = (
    "Generative decoder: not for evidence. Fine detail may be invented: diffusion-codec audit shows where."
)

_lazy_groups: dict[str, tuple[str, str]] = {}
"""Module and attribute of a group's commands, and the extra of the package that they need."""


class _LazyGroups(TyperGroup):
    """Imports a registered group only when one of its commands is asked for, not to list it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _lazy_groups:
            module, attribute = _lazy_groups[name][0].split(":")
            command = typer.main.get_command(getattr(import_module(module), attribute))
            command.name = name
        return name, command, rest


app = typer.Typer(
    name=PROGRAM,
    cls=_LazyGroups,
    help="Compress photographs with a diffusion model: picture to .dfc file and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add_lazy_group(name: str, target: str, summary: str, extra: str = "") -> None:
    """Add the commands of the Typer app ``module:attribute`` under ``name``; imported when first used.

    ``summary`` is the line that ``--help`` shows, which must not import the module. ``extra`` is the package's extra
    that installs what the commands need.
    """
    _lazy_groups[name] = target, extra
    app.add_typer(typer.Typer(help=summary), name=name)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line (``sys.argv`` without ``arguments``) and exit with its code."""
    # Pillow logs what it then raises; users get the one line of the error.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a file's name may have characters that the terminal has not
            stream.reconfigure(errors="backslashreplace")
    try:
        if _is_plain_info(arguments):
            reports_memory(info)(arguments[1], "--json" in arguments)
        else:
            reports_memory(app)(args=arguments, prog_name=PROGRAM)
    except DiffusionCodecError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail_of_missing(error, next(iter(arguments), ""))
    except OSError as error:  # a full disk, a folder that is read-only
        _fail(f"'{error.filename}': {error.strerror}" if error.filename else error.strerror or str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _fail_of_missing(error: ModuleNotFoundError, group: str) -> NoReturn:
    """One line for a package that the group's extra would have installed; any other is a fault of the program."""
    _, extra = _lazy_groups.get(group, ("", ""))
    module = (error.name or "").partition(".")[0]
    if not extra or module in ("", __package__):
        raise error
    _fail(f"{group} needs {module}, which is not installed: {how_to_install(extra)}")


def _is_plain_info(arguments: list[str]) -> bool:
    """``info FILE`` or ``info FILE --json``: read without Typer, whose checks of types take longer than the rest."""
    is_file = len(arguments) in (2, 3) and (
        arguments[1] == STANDARD_STREAM or not arguments[1].startswith("-")
    )
    return is_file and arguments[0] == "info" and arguments[2:] in ([], ["--json"])


InArgument = Annotated[
    str, typer.Argument(metavar="IN", help="File to read, or a folder of them; - is standard input.")
]
OutArgument = Annotated[
    str, typer.Argument(metavar="OUT", help="File to write, or a folder for IN's; - is standard output.")
]
RefineOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Steps of fitting the latent to its picture, in no more bytes; 40 take minutes (extra: evaluation).",
    ),
]
BackboneOption = Annotated[
    str,
    typer.Option(metavar="NAME|FOLDER", help="Diffusion model: a name or a diffusers folder."),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="P_phi and entropy model: default, independent, paper-2024, paper-2025, or a file.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="P", help="Number format: auto (fast where exact enough), float32, bfloat16, float16."
    ),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the model first: slow once, then fast.")
]
OffloadOption = Annotated[
    bool,
    typer.Option("--offload", help="Keep only the network that works on the device; one file at a time."),
]
LowMemoryOption = Annotated[bool, typer.Option("--low-memory", help="Work in smaller tiles and slices.")]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What the program may hold, as in 1.5G: tiles as small, files of a folder at once as few as needed.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", metavar="N", min=1, help="Files of a folder at once, at most; one a core, up to 8."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite OUT if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text: one object a file.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        major, minor = bitstream.FORMAT_VERSION
        typer.echo(f"{PROGRAM} {__version__} (file format {major}.{minor})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def compress(
    source: InArgument,
    target: OutArgument,
    quality: Annotated[
        float | None,
        typer.Option("--quality", "-q", metavar="Q", help="0 (smallest) to 100 (best); 50 by default."),
    ] = None,
    bpp: Annotated[
        float | None, typer.Option(metavar="B", help="The best quality within B bits per pixel.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The best quality within N bytes.")
    ] = None,
    refine: RefineOption = None,
    backbone: BackboneOption = "mini",
    codec_weights: WeightsOption = "default",
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    offload: OffloadOption = False,
    low_memory: LowMemoryOption = False,
    max_memory: MaxMemoryOption = None,
    jobs: JobsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compress the picture IN to the .dfc file OUT.

    IN may have any format that Pillow reads (HEIC with pillow-heif), up to 16384 pixels a side and 134 million in all.
    Of a folder every picture with a known suffix is compressed, those of folders inside it are not; one that fails
    costs a line and the exit code 1, not the others.
    """
    _check_rate(quality, bpp, max_bytes)
    if refine is not None and (offload or max_memory is not None):
        raise typer.BadParameter(
            "--refine needs all networks and their gradients at once: no --offload, no --max-memory"
        )

    run = (precision, compiled, offload, low_memory, max_memory)
    load = partial(_load_codec, backbone, device, run, codec_weights)

    def work(job: _Job, load: "Loader") -> "Coded":
        return _compress_file(job, load, quality, bpp, max_bytes, refine)

    if os.path.isdir(source):
        from diffusion_codec.image_io import picture_suffixes

        todo = _folder_tasks(source, target, picture_suffixes(), ".dfc")
        _make_ready(backbone, device)
        _run_folder(todo, work, load, jobs, force, as_json)
        return
    _check_pair(source, target)
    check_target(target, force)
    if source != STANDARD_STREAM and not os.path.exists(source):
        read_bytes(source, 0)  # says so before a model is fetched
    _make_ready(backbone, device)
    _run_file(_Job(source, target, force), work, load, as_json, stages=3 + (refine or 0))


@app.command()
def decompress(
    source: InArgument,
    target: OutArgument,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Denoising steps; 0 leaves the quantisation noise in."),
    ] = None,
    fidelity: Annotated[
        float | None,
        typer.Option(metavar="F", min=0, max=1, help="0 (blurs what it does not know) to 1 (invents it)."),
    ] = None,
    backbone: BackboneOption = "mini",
    codec_weights: WeightsOption = "default",
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    offload: OffloadOption = False,
    low_memory: LowMemoryOption = False,
    max_memory: MaxMemoryOption = None,
    jobs: JobsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decompress the .dfc file IN to the picture OUT.

    The embedded codec weights are found by the file's fingerprint; a file of others needs --codec-weights.
    The picture's format is that of OUT's suffix: .png, .tif, .bmp, .ppm, .webp or .jpg; PNG for - and for the files of
    a folder.
    """

    run = (precision, compiled, offload, low_memory, max_memory)
    load = partial(_load_codec, backbone, device, run, codec_weights)

    def work(job: _Job, load: "Loader") -> "Coded":
        return _decompress_file(job, load, steps, fidelity)

    if os.path.isdir(source):
        todo = _folder_tasks(source, target, (".dfc",), ".png")
        _make_ready(backbone, device)
        _run_folder(todo, work, load, jobs, force, as_json)
        return
    _check_pair(source, target)
    check_target(target, force)
    from diffusion_codec.image_io import image_format

    image_format(target)
    data, _ = read_dfc(source)  # a damaged file is refused before a model is fetched
    _make_ready(backbone, device)
    _run_file(_Job(source, target, force, data), work, load, as_json, stages=2)


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .dfc file; - is standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a .dfc file holds and what each part costs.

    Needs neither the codec's weights nor a model.
    """
    data, file = read_dfc(source)
    if as_json:
        typer.echo(json.dumps(_info_fields(data, file)))
    else:
        typer.echo("\n".join(_info_lines(source, data, file)))


def _check_rate(quality: float | None, bpp: float | None, max_bytes: int | None) -> None:
    if sum(value is not None for value in (quality, bpp, max_bytes)) > 1:
        raise typer.BadParameter("--quality, --bpp and --max-bytes exclude each other: give one of them")
    if quality is not None and not 0 <= quality <= 100:
        raise typer.BadParameter(f"--quality is {quality:g}, expected 0 to 100")
    if bpp is not None and not 0 < bpp <= MOST_BPP:
        raise typer.BadParameter(
            f"--bpp is {bpp:g}, expected bits per pixel above 0 and up to {MOST_BPP}, such as 0.1"
        )


def _check_pair(source: str, target: str) -> None:
    both_exist = target != STANDARD_STREAM and os.path.exists(source) and os.path.exists(target)
    if both_exist and os.path.samefile(source, target):
        raise typer.BadParameter(f"IN and OUT are the same file, '{target}': choose another name for OUT")


def _make_ready(backbone: str, device: str) -> None:
    """Fetch a backbone that is no folder and does not ship, before a bar of its own would cross that of the work.

    A device that is not there is said before gigabytes are fetched for it.
    """
    if backbone == "mini":
        return
    from diffusion_codec.backbone import options, prompt, sources

    if not sources.is_folder(backbone):
        options.checked_device(device)
        prompt.load(sources.find(backbone))


def _load_codec(
    backbone: str, device: str, run: tuple[str, bool, bool, bool, str | None], weights: str, job: "_Job"
) -> "Codec":
    job.show("loading the model")
    from diffusion_codec.backbone.options import run_options
    from diffusion_codec.codec import Codec

    codec = Codec.from_pretrained(backbone=backbone, weights=weights, device=device, run=run_options(*run))
    job.clock.lap("load")
    return codec


def _compress_file(
    job: "_Job",
    load: "Loader",
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    refine: int | None,
) -> "Coded":
    from diffusion_codec.image_io import load_image

    job.show("reading the picture")
    picture = load_image(job.source)
    for note in picture.notes:
        _say(f"note: {describe(job.source)}: {note}")
    if bpp is not None:
        height, width, _ = picture.pixels.shape
        max_bytes = math.floor(bpp * width * height / 8)
    job.clock.lap("read")
    codec = load(job)
    job.show("compressing")
    result = _compress(codec, picture, quality, max_bytes)
    if refine is not None:
        result = _refine(job, codec, picture, result, refine, max_bytes)
    job.clock.add(result.seconds)
    write_atomically(job.target, result.data, job.force)
    job.clock.lap("write")
    return result.data, result.symbols_sha256


def _compress(
    codec: "Codec", picture: "Picture", quality: float | None, max_bytes: int | None
) -> "Compressed":
    if max_bytes is not None:
        return codec.compress_to_size(picture.pixels, max_bytes=max_bytes, grayscale=picture.grayscale)
    wanted = DEFAULT_QUALITY if quality is None else quality
    return codec.compress(picture.pixels, quality=wanted, grayscale=picture.grayscale)


def _refine(
    job: "_Job", codec: "Codec", picture: "Picture", file: "Compressed", steps: int, max_bytes: int | None
) -> "Compressed":
    from diffusion_codec.refinement import refine

    def tell(step: int) -> None:
        job.show(f"refining, step {step} of {steps}")

    return refine(codec, picture.pixels, file, steps, max_bytes, tell)


def _decompress_file(job: "_Job", load: "Loader", steps: int | None, fidelity: float | None) -> "Coded":
    from diffusion_codec.image_io import Picture, save_image

    data = job.data or read_dfc(job.source)[0]
    job.clock.lap("read")
    codec = load(job)
    job.show("decompressing")
    result = codec.decompress(data, steps=steps, fidelity=fidelity)
    job.clock.add(result.seconds)
    save_image(Picture(result.pixels, result.grayscale), job.target, job.force)
    job.clock.lap("write")
    return data, result.symbols_sha256


def read_dfc(source: str) -> tuple[bytes, bitstream.DfcFile]:
    """A file that is sound as far as that can be told without its codec weights: its bytes, and what they say."""
    data = read_bytes(source, bitstream.DEFAULT_LIMITS.max_file_bytes)
    try:
        return data, bitstream.read(data)
    except BadInputError as error:
        raise type(error)(f"{describe(source)}: {error}") from error


def _run_file(job: "_Job", work: "Work", load: "Loader", as_json: bool, stages: int) -> None:
    with _progress(stages) as show:
        job.show = show
        coded = work(job, load)
    _print_result(job, coded, as_json)


def _folder_tasks(source: str, target: str, suffixes: "Iterable[str]", new_suffix: str) -> "list[Task]":
    """The files of a folder; the folder for their results is made."""
    from diffusion_codec import folders

    if target == STANDARD_STREAM or (os.path.splitext(target)[1] and not os.path.isdir(target)):
        raise BadInputError(
            f"'{source}' is a directory, expected a file; for all files in it name a directory as OUT, not '{target}' "
            "(a new one with a dot in its name ends in /)"
        )
    todo = folders.tasks(source, target, suffixes, new_suffix)
    os.makedirs(target, exist_ok=True)
    if others := folders.left_alone(source, todo):
        shown = ", ".join([*others[:5], *["..."] * (len(others) > 5)])
        _say(f"note: left alone, as no such file or a folder: {shown} ({len(others)})")
    return todo


def _run_folder(
    todo: "list[Task]", work: "Work", load: "Loader", jobs: int | None, force: bool, as_json: bool
) -> None:
    """One line a file; exit code 1 at the end if any failed."""
    from diffusion_codec import folders

    codec = load(_Job("", "", force))
    count = codec.backbone.share(min(folders.workers(jobs), len(todo)), map(_size, todo))

    @reports_memory
    def one(task: "Task") -> "tuple[_Job, Coded]":
        job = _Job(str(task.source), str(task.target), force)
        check_target(job.target, force)
        return job, work(job, lambda job: codec)

    failed = 0
    for number, outcome in enumerate(folders.run(todo, one, count, folders.share_threads(count)), 1):
        if outcome.result is None:
            failed += 1
            name, error = f"'{outcome.task.source}'", str(outcome.error)
            _say(f"error: {error}" if name in error else f"error: {name}: {error}")
            if as_json:
                typer.echo(json.dumps({"source": str(outcome.task.source), "error": error}))
        else:
            _print_result(*outcome.result, as_json, f"{number}/{len(todo)} ")
    if failed:
        _say(f"error: {failed} of {len(todo)} files failed")
        raise typer.Exit(1)


def _size(task: "Task") -> tuple[int, int]:
    """Width and height as the file's header says them; zeros for a file that its own turn will refuse."""
    from diffusion_codec.image_io import picture_size

    source = str(task.source)
    try:
        if not source.lower().endswith(".dfc"):
            return picture_size(source)
        header = read_dfc(source)[1].header
    except DiffusionCodecError:
        return 0, 0
    return header.width, header.height


class _Clock:
    """Seconds by stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now

    def add(self, stages: dict[str, float]) -> None:
        """Stages that the codec has timed itself, since the last lap."""
        self.seconds.update(stages)
        self._last = perf_counter()


def _show_nothing(stage: str) -> None:
    pass


@dataclass
class _Job:
    """One file on its way: names, may OUT be replaced, IN's bytes if read, seconds, and who is told what goes on."""

    source: str
    target: str
    force: bool
    data: bytes = b""
    clock: _Clock = field(default_factory=_Clock)
    show: Callable[[str], None] = _show_nothing


@contextmanager
def _progress(stages: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error if that is a terminal and the work takes more than two seconds."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=stages, completed=-1)
    timer = threading.Timer(PROGRESS_AFTER_SECONDS, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda stage: bar.update(task, description=stage, advance=1)
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()


def _bpp(data: bytes, header: bitstream.Header) -> float:
    return 8 * len(data) / (header.width * header.height)


def _print_result(job: _Job, coded: "Coded", as_json: bool, prefix: str = "") -> None:
    """One JSON object or one line, on standard error if standard output carries the result."""
    source, target, seconds = job.source, job.target, job.clock.seconds
    data, symbols_sha256 = coded
    file = bitstream.read(data)
    header, bpp = file.header, _bpp(data, file.header)
    if as_json:
        fields = {
            **({"source": source, "target": target} if prefix else {}),
            "bytes": len(data),
            "bpp": bpp,
            "width": header.width,
            "height": header.height,
            "ledger": bitstream.ledger(file),
            "symbols_sha256": symbols_sha256,
            "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        }
        text = json.dumps(fields)
    else:
        text = (
            f"{prefix}{source} -> {target}: {header.width} x {header.height} pixels, {len(data)} bytes, "
            f"{bpp:.4f} bits per pixel, {sum(seconds.values()):.1f} s"
        )
    typer.echo(text, err=target == STANDARD_STREAM)


def _info_fields(data: bytes, file: bitstream.DfcFile) -> dict[str, Any]:
    return {
        "format_version": f"{data[4] >> 4}.{data[4] & 0x0F}",
        "bytes": len(data),
        "bpp": _bpp(data, file.header),
        "generative": True,
        **bitstream.header_fields(file.header),
        "ledger": bitstream.ledger(file),
    }


def _info_lines(source: str, data: bytes, file: bitstream.DfcFile) -> list[str]:
    header, fields = file.header, _info_fields(data, file)
    pixels = header.width * header.height
    scales = " ".join(f"{2 ** (a / 16):.3f}" for a in header.alpha)
    offsets = " ".join(f"{b / 256:.3f}" for b in header.beta)
    rows = [
        ("picture", f"{header.width} x {header.height} pixels, {'grey' if header.grayscale else 'colour'}"),
        ("format", f"version {fields['format_version']}"),
        ("codec weights", fields["weights_fingerprint"]),
        ("timestep", str(header.timestep)),
        ("scale alpha", scales),
        ("offset beta", offsets),
        ("dither", "none" if header.dither_seed is None else f"seed {header.dither_seed}"),
    ]
    lines = [f"{describe(source)}"] + [f"  {name:<18}{value}" for name, value in rows]
    lines += ["", f"  {'part':<18}{'bytes':>8}{'share':>9}{'bits per pixel':>17}"]
    for part, size in [*fields["ledger"].items(), ("total", len(data))]:
        name = part.replace("_", " ")
        lines.append(f"  {name:<18}{size:>8}{size / len(data):>9.1%}{8 * size / pixels:>17.5f}")
    return [*lines, "", GENERATIVE_NOTICE]


def _say(message: str) -> None:
    """One line on standard error, whatever is in the message."""
    typer.echo(f"{PROGRAM}: {' '.join(message.split())}", err=True)


def _fail(message: str) -> NoReturn:
    _say(f"error: {message}")
    sys.exit(1)


add_lazy_group(
    "train",
    "diffusion_codec.training.cli:app",
    "Train the small backbone and the codec's own networks.",
    extra="evaluation",
)
add_lazy_group("backbone", "diffusion_codec.backbone.cli:app", "The diffusion models the codec can stand on.")
add_lazy_group(
    "study", "diffusion_codec.user_study.cli:app", "Run a forced-choice study in a browser.", extra="study"
)
add_lazy_group(
    "evaluate",
    "diffusion_codec.evaluation.__main__:app",
    "Measure codecs on a data set at several rates.",
    extra="evaluation",
)
add_lazy_group(
    "conformance", "diffusion_codec.conformance:app", "Check this or another decoder against golden files."
)
add_lazy_group(
    "audit",
    "diffusion_codec.audit.cli:app",
    "Map what the decoder of a .dfc file made up.",
    extra="evaluation",
)
