"""``python -m diffusion_codec.bench``: seconds, operations and memory of the codec, as a table.

Each size is measured in a fresh process: loading, then the median of several warm runs of compress and decompress,
stage by stage, then the most memory the process ever held, then the range coder alone on the same symbols and the
machine's speed in plain matrix products, against which the stages are judged. With ``--growth`` the sizes go from a
tenth of a megapixel to a dozen, or to 48 with ``--largest``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from diffusion_codec import bitstream
from diffusion_codec.backbone.options import run_options
from diffusion_codec.bench.shared import HEIGHT, PHOTOGRAPH, WIDTH, in_fresh_process, photograph, write_record
from diffusion_codec.codec import DEFAULT_STEPS, Codec
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.entropy.coder import Streams
from diffusion_codec.entropy.model import CHANNELS, SideInformation, table_indices
from diffusion_codec.entropy.range_coder import Decoder, Encoder
from diffusion_codec.errors import DiffusionCodecError
from diffusion_codec.memory import peak_memory
from diffusion_codec.quantization import shared_dither

if TYPE_CHECKING:
    from rich.table import Table

SIZES = ((256, 256), (768, 512), (2048, 1365))
GROWTH = ((384, 256), (768, 512), (1536, 1024), (2048, 1365), (3072, 2048), (4344, 2896))
LARGEST = (8000, 6000)
SMOKE_SIZES = ((64, 48),)
COUNTED = 2**22
"""Pixels up to which operations are counted, which takes as long as another run."""

MATRIX = 1024
"""Side of the matrices whose product measures the machine."""

REPEATS, SMOKE_REPEATS = 5, 1

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Job:
    """What one fresh process measures; ``backbone`` and ``weights`` as in :meth:`Codec.from_pretrained`."""

    width: int
    height: int
    repeats: int
    steps: int = DEFAULT_STEPS
    backbone: str = "mini"
    weights: str = "default"
    device: str = "cpu"
    precision: str = "auto"


@dataclass(frozen=True)
class Measurement:
    """Medians in seconds of warm runs, bytes of the file, and the peak memory of the whole process in bytes.

    ``operations`` are those of E, of the reverse process and of D, two a multiply-add; ``matrix_speed`` is how many a
    second the machine reaches in a product of two square matrices, by number format; ``formats`` are the networks'.
    """

    width: int
    height: int
    load: float
    compress: dict[str, float]
    decompress: dict[str, float]
    range_coder: dict[str, float]
    symbols: int
    file_bytes: int
    peak_memory: int
    operations: dict[str, int]
    formats: dict[str, str]
    matrix_speed: dict[str, float]


def measure(job: Job, pixels: np.ndarray) -> Measurement:
    """Run ``job`` on uint8 (height, width, 3) in this process."""
    started = time.perf_counter()
    run = run_options(job.precision)
    codec = Codec.from_pretrained(job.backbone, job.weights, job.device, run)
    load = time.perf_counter() - started
    data = codec.compress(pixels[:HEIGHT, :WIDTH]).data  # warms the caches, as decompress does
    codec.decompress(data, job.steps)

    def made() -> dict[str, float]:
        nonlocal data
        file = codec.compress(pixels)
        data = file.data
        return file.seconds

    compress = [_timed(made) for _ in range(job.repeats)]
    decompress = [_timed(lambda: codec.decompress(data, job.steps).seconds) for _ in range(job.repeats)]
    peak = peak_memory()
    coding, symbols = range_coder_alone(codec.weights, data, job.repeats)
    vae = codec.backbone.vae
    formats = {
        "encode": _format(vae.encoder),
        "denoise": _format(codec.backbone.unet),
        "decode": _format(vae.decoder),
    }
    return Measurement(
        width=job.width,
        height=job.height,
        load=load,
        compress=_medians(compress),
        decompress=_medians(decompress),
        range_coder=coding,
        symbols=symbols,
        file_bytes=len(data),
        peak_memory=peak,
        operations=operations(codec, job) if job.width * job.height <= COUNTED else {},
        formats=formats,
        matrix_speed={name: matrix_speed(name, job.device) for name in sorted(set(formats.values()))},
    )


@torch.inference_mode()
def operations(codec: Codec, job: Job) -> dict[str, int]:
    """What E, the reverse process and D take for one picture, counted on whole tiles of zeros."""
    backbone = codec.backbone
    height, width = (-(-side // 8) for side in (job.height, job.width))
    x = torch.zeros(1, 3, 8 * height, 8 * width, device=backbone.device)
    y, t = (
        torch.zeros(1, 4, height, width, device=backbone.device),
        torch.tensor([100.0], device=backbone.device),
    )
    runs: dict[str, Callable[[], object]] = {
        "encode": lambda: backbone.encode(x),
        "denoise": lambda: backbone.denoise(y, t, job.steps),
        "decode": lambda: backbone.decode(y),
    }
    counted = {}
    for stage, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        counted[stage] = int(counter.get_total_flops())
    return counted


def matrix_speed(name: str, device: str = "cpu") -> float:
    """Operations a second in products of two matrices of that number format: the best of several."""
    a = torch.ones(MATRIX, MATRIX, dtype=getattr(torch, name), device=device)

    def multiply() -> None:
        torch.mm(a, a)
        if a.is_cuda:
            torch.cuda.synchronize(a.device)

    return 2 * MATRIX**3 / min(_seconds(multiply) for _ in range(8))


def _format(network: torch.nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")


def range_coder_alone(weights: CodecWeights, data: bytes, repeats: int) -> tuple[dict[str, float], int]:
    """Seconds to encode and decode a file's symbols when the networks have spoken already; number of symbols."""
    coder, groups = weights.latent_coder, symbol_groups(weights, data)
    stream = b""

    def encode() -> None:
        nonlocal stream
        encoder = Encoder(coder.gaussian)
        for values, level, mean in groups:
            encoder.put(values, level, mean)
        stream = encoder.finish()

    def decode() -> None:
        decoder = Decoder(coder.gaussian, stream)
        for values, level, mean in groups:
            if not np.array_equal(decoder.get(level, mean), values):
                raise AssertionError("the range coder did not return the symbols it was given")

    seconds = {
        "encode": median(_seconds(encode) for _ in range(repeats)),
        "decode": median(_seconds(decode) for _ in range(repeats)),
    }
    return seconds, sum(len(values) for values, _, _ in groups)


@torch.inference_mode()
def symbol_groups(weights: CodecWeights, data: bytes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What the range coder is given for a file, pass by pass: values, table levels, means; int64 (n,) each."""
    file = bitstream.read(data)
    header = file.header
    size = (-(-header.height // 8), -(-header.width // 8))
    side = SideInformation(torch.tensor([header.alpha]), torch.tensor([header.timestep]))
    coder, dither = weights.latent_coder, torch.zeros(CHANNELS, *size)
    if header.dither_seed is not None and weights.dithered:
        dither = torch.from_numpy(shared_dither(header.dither_seed, (CHANNELS, *size)))
    z_hat = weights.decode(Streams(file.hyper, file.latent), size, side, dither)
    side = SideInformation(side.alpha_index.double(), side.timestep.double())
    features = coder.hyper_features(file.hyper, size)
    groups = []
    for index, mean, log_scale in coder.model.each_pass((z_hat - dither.double())[None], side, features):
        channel, mask = coder.model.channel_and_mask(index, *size)
        level, fraction = table_indices(
            mean[0][mask] + dither[channel][mask].double(), log_scale[0][mask], len(coder.gaussian)
        )
        groups.append((z_hat[channel][mask].numpy(), level.numpy(), fraction.numpy()))
    return groups


def share_of_peak(measured: Measurement, stage: str) -> float:
    """The part of the machine's speed in matrix products that a stage reaches."""
    seconds = {**measured.compress, **measured.decompress}[stage]
    return measured.operations[stage] / seconds / measured.matrix_speed[measured.formats[stage]]


def table(measurements: list[Measurement]) -> "Table":
    """One column a size, one row a stage."""
    from rich.table import Table

    shown = Table("", *(f"{m.width} x {m.height}" for m in measurements), box=None)
    for column in shown.columns[1:]:
        column.justify = "right"

    def rows(title: str, field: str) -> None:
        stages = list(dict.fromkeys(stage for m in measurements for stage in getattr(m, field)))
        for stage in stages:
            cells = [f"{getattr(m, field).get(stage, 0):.3f} s" for m in measurements]
            shown.add_row(f"{title} {stage}" if stage == "total" else f"  {stage}", *cells)

    shown.add_row("load the models (once)", *(f"{m.load:.2f} s" for m in measurements))
    rows("compress", "compress")
    rows("decompress", "decompress")
    shown.add_row("range coder alone", *(f"{m.symbols} symbols" for m in measurements))
    rows("range coder", "range_coder")
    for stage in measurements[0].operations:
        counted = (
            f"{m.operations[stage] / 1e9:.0f} G, {share_of_peak(m, stage):.0%}" if m.operations else "–"
            for m in measurements
        )
        shown.add_row(f"operations of {stage}, share of peak", *counted)
    shown.add_row("file", *(f"{m.file_bytes} bytes" for m in measurements))
    shown.add_row("peak memory of the process", *(f"{m.peak_memory / 2**20:.0f} MiB" for m in measurements))
    return shown


def _timed(run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Stages as reported, and the whole call as ``total``, which comes first."""
    started = time.perf_counter()
    stages = run()
    return {"total": time.perf_counter() - started, **stages}


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: median(run[stage] for run in runs) for stage in runs[0]}


@app.command()
def bench(
    smoke: Annotated[bool, typer.Option("--smoke", help="One tiny picture, once: does it run?")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Warm runs; the median is shown")] = None,
    steps: Annotated[int, typer.Option(min=0, help="DDIM steps of decompress")] = DEFAULT_STEPS,
    backbone: Annotated[str, typer.Option(help="Embedded backbone or a folder")] = "mini",
    weights: Annotated[str, typer.Option(help="Codec weights: embedded by name, or a file")] = "default",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    growth: Annotated[
        bool, typer.Option("--growth", help="Sizes from 0.1 to 12.6 megapixels instead")
    ] = False,
    largest: Annotated[bool, typer.Option("--largest", help="With --growth: 48 megapixels, too")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Also write data/results/bench.json or bench_growth.json")
    ] = False,
) -> None:
    """Measure seconds by stage and memory of compress and decompress, model loading apart."""
    from rich.console import Console

    repeats = repeats or (SMOKE_REPEATS if smoke or growth else REPEATS)
    grown = (*GROWTH, LARGEST) if largest else GROWTH
    sizes = SMOKE_SIZES if smoke else grown if growth else SIZES
    jobs = [
        Job(width, height, repeats, steps, backbone, weights, device, precision) for width, height in sizes
    ]
    try:
        measurements = [in_fresh_process(measure, job, photograph(job.width, job.height)) for job in jobs]
    except DiffusionCodecError as error:
        typer.echo(f"bench: error: {error}", err=True)
        raise typer.Exit(1) from None
    console = Console()
    console.print(table(measurements))
    name = Path(backbone).name
    console.print(
        f"Median of {repeats} warm runs, {steps} DDIM steps, backbone {name}, photograph {PHOTOGRAPH}; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}."
    )
    if save:
        about = {
            "repeats": repeats,
            "steps": steps,
            "backbone": name,
            "photograph": PHOTOGRAPH,
            "precision": precision,
        }
        record = "bench_growth" if growth else "bench"
        console.print(f"Written: {write_record(record, 'measurements', measurements, about, device)}")
