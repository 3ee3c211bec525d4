"""``diffusion-codec train``: the recipes, their studies, export and cards."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from diffusion_codec import codec_weights, datasets
from diffusion_codec.backbone import Backbone
from diffusion_codec.backbone.layout import STABLE_DIFFUSION_SPACE
from diffusion_codec.datasets.vimeo import Septuplets
from diffusion_codec.errors import BadInputError
from diffusion_codec.fetch import locate
from diffusion_codec.files import OutputError, TargetExistsError, check_target, write_atomically
from diffusion_codec.training import denoiser_study as denoisers
from diffusion_codec.training import parallel
from diffusion_codec.training.autoencoder import AutoencoderConfig, AutoencoderRecipe
from diffusion_codec.training.card import codec_card, denoising, model_card, round_trip
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops, warm_start
from diffusion_codec.training.configuration import read_config
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.entropy_models import VARIANTS, train_on_fewer, train_variants
from diffusion_codec.training.export import (
    begin_from,
    export_backbone,
    export_codec,
    load_autoencoder,
    run_history,
)
from diffusion_codec.training.latents import (
    cache_file,
    cached_latents,
    in_tiles,
    load_taesd,
    load_weights,
    photos_sha256,
    weights_sha256,
)
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops, load_photos
from diffusion_codec.training.septuplets import SeptupletCropsWithLatents, spread_frames

app = typer.Typer(help="Train the small backbone and the codec's own networks.", no_args_is_help=True)
Encode = Callable[[Tensor], Tensor]

ConfigOption = Annotated[
    str, typer.Option(help="cpu, full, smoke or another of training/configs/, or a YAML file.")
]
OutOption = Annotated[
    Path, typer.Option(help="Folder for checkpoints and loss curves; a run there is continued.")
]
PhotosOption = Annotated[
    Path | None, typer.Option(help="Folder of training photographs (default: the data set train-photos).")
]
TeacherOption = Annotated[
    Path | None, typer.Option(help="Folder of TAESD's two weight files (default: from the manifest).")
]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite OUT if it exists.")]
StopOption = Annotated[
    int | None, typer.Option(min=1, help="Stop after this many steps in all; run again to continue.")
]


def _photos(folder: Path | None, limit: int | None) -> list[Tensor]:
    pixels = load_photos(folder or locate("train-photos").path, limit)
    if folder is not None:
        there = len(datasets.photo_files(folder))
        typer.echo(f"{len(pixels)} photographs of the {there} in '{folder}' are trained on", err=True)
    return pixels


def _told(folder: Path | None, photos: Sequence[Tensor], added: str = "") -> str:
    """The photographs of a run in words, with their hash."""
    where = "the data set train-photos" if folder is None else f"the folder '{folder.name}'"
    return f"{len(photos)} photographs of {where}{added}, SHA-256 {photos_sha256(photos)[:16]}"


def _of(backbone: Backbone) -> dict[str, str]:
    """What a run records of its backbone."""
    return {
        "backbone": f"{backbone.name}, fingerprint {backbone.fingerprint}",
        "latent_space": backbone.latent_space,
    }


def _teacher(folder: Path | None) -> AutoencoderTiny:
    return load_taesd(folder or locate("taesd").path)


def _latents(vae: nn.Module, encode: Encode, photos: list[Tensor], out: Path, device: str) -> list[Tensor]:
    """Latents by ``vae``'s own encoder, kept in the folder ``cache`` beside that of the run."""
    cache = cache_file(out.parent / "cache", vae.encoder, photos)  # type: ignore[arg-type]
    with parallel.main_first(device):
        return cached_latents(encode, photos, cache, device)


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file, expected the name of a folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise TargetExistsError(
            f"'{folder}' exists already: choose another name, or overwrite it with --force"
        )


@app.command()
def autoencoder(
    out: OutOption,
    config: ConfigOption = "cpu",
    photos: PhotosOption = None,
    teacher: TeacherOption = None,
    device: DeviceOption = "cpu",
    stop_after: StopOption = None,
    start_from: Annotated[
        list[Path] | None,
        typer.Option(help="Runs whose weights to start from; of two, the later one counts."),
    ] = None,
    denoiser: Annotated[
        str | None,
        typer.Option(help="Backbone whose denoiser makes latents for the decoder (denoised_below)."),
    ] = None,
) -> None:
    """Encoder by latent distillation, decoder by reconstruction."""
    settings, device = parallel.own(read_config("autoencoder", config, AutoencoderConfig), device)
    pixels = _photos(photos, settings.photos_limit)
    cleaner = None if denoiser is None else Backbone.from_pretrained(denoiser, device)
    model = _teacher(teacher)
    recipe = AutoencoderRecipe(settings, pixels, model, device, cleaner)
    if start_from:
        begin_from(recipe.model, start_from, settings)
    frozen = {n: p for n, p in recipe.model.named_parameters() if not p.requires_grad}
    origin = {
        "recipe": "autoencoder",
        "photographs": _told(photos, pixels),
        "teacher": weights_sha256(model.state_dict())[:16],
        "untrained part": weights_sha256(frozen)[:16] if frozen else "none",
        "denoiser": "none" if cleaner is None else cleaner.fingerprint,
    }
    train(recipe, out, stop_after, origin)


@app.command()
def denoiser(
    out: OutOption,
    config: ConfigOption = "cpu",
    photos: PhotosOption = None,
    teacher: TeacherOption = None,
    autoencoder: Annotated[
        list[Path] | None,
        typer.Option(help="Runs of the autoencoder recipe whose latents to learn (default: the teacher's)."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Backbone folder whose denoiser, of the same shape, to start from.")
    ] = None,
    device: DeviceOption = "cpu",
    stop_after: StopOption = None,
) -> None:
    """Epsilon-prediction on Stable Diffusion's schedule."""
    settings, device = parallel.own(read_config("denoiser", config, DenoiserConfig), device)
    pixels = _photos(photos, settings.photos_limit)
    model = load_autoencoder(autoencoder) if autoencoder else _teacher(teacher)
    model = model.to(device, memory_format=torch.channels_last)
    latents = _latents(model, in_tiles(model), pixels, out, device)
    recipe = DenoiserRecipe(settings, latents, device)
    if start_from is not None:
        load_weights(recipe.model, Backbone.from_pretrained(start_from).unet.state_dict(), f"'{start_from}'")
    origin = {
        "recipe": "denoiser",
        "photographs": _told(photos, pixels),
        "latents": f"of the encoder {weights_sha256(model.encoder.state_dict())[:16]}",
    }
    train(recipe, out, stop_after, origin)


@app.command()
def denoiser_study(
    out: OutOption,
    table: Annotated[Path, typer.Option(help="Table to write, csv.")],
    config: ConfigOption = "study",
    photos: PhotosOption = None,
    backbone: Annotated[str, typer.Option(help="Whose autoencoder.")] = "mini",
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Small denoisers trained alike, compared on quantised latents: prediction, noise, and plain regression."""
    check_target(table, force=True)
    settings, device = parallel.own(read_config("denoiser", config, DenoiserConfig), device)
    frozen_backbone = Backbone.from_pretrained(backbone, device)
    pixels = _photos(photos, settings.photos_limit)
    latents = _latents(frozen_backbone.vae, frozen_backbone.encode, pixels, out, device)
    candidates = denoisers.train_variants(settings, latents, frozen_backbone, out, device)
    images = datasets.load(dataset, limit)
    measured = denoisers.measure(candidates, frozen_backbone, images)
    measured.insert(0, "dataset", images.name)
    write_atomically(table, measured.to_csv(index=False).encode(), force=True)


@app.command()
def codec(
    out: OutOption,
    config: ConfigOption = "cpu",
    backbone: Annotated[str, typer.Option(help="Embedded backbone or folder; it stays frozen.")] = "mini",
    septuplets: Annotated[
        str, typer.Option(help="Vimeo-90k by its name in the manifest.")
    ] = "vimeo90k-septuplet",
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photographs to train on in place of the septuplets.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=0, help="With --photos: frames of each training septuplet to add to them.")
    ] = 0,
    start_from: Annotated[
        Path | None, typer.Option(help="File of codec weights of the same shape to start from.")
    ] = None,
    device: DeviceOption = "cpu",
    stop_after: StopOption = None,
) -> None:
    """P_phi and the entropy model; all that the paper trains."""
    settings, device = parallel.own(read_config("codec", config, CodecConfig), device)
    frozen_backbone = Backbone.from_pretrained(backbone, device)
    crops: Crops
    if photos is None:
        data = Septuplets.named(septuplets, "train")
        crops = SeptupletCropsWithLatents(data, frozen_backbone, settings.crop)
        told = f"{len(data)} septuplets of {septuplets}"
    else:
        added = spread_frames(Septuplets.named(septuplets, "train"), frames) if frames else []
        own = _photos(photos, settings.photos_limit)
        told = _told(photos, own, f" and {len(added)} frames of {septuplets}" if frames else "")
        pixels = [*own, *added]
        crops = LatentCrops(
            pixels,
            _latents(frozen_backbone.vae, frozen_backbone.encode, pixels, out, device),
            settings.crop,
        )
    recipe = CodecRecipe(settings, frozen_backbone, crops, device)
    if start_from is not None:
        warm_start(recipe, codec_weights.load(start_from))
    train(recipe, out, stop_after, {"recipe": "codec", "photographs": told} | _of(frozen_backbone))


@app.command()
def entropy_models(
    out: OutOption,
    config: ConfigOption = "cpu",
    only: Annotated[list[str] | None, typer.Option(help=f"Only these; of {', '.join(VARIANTS)}.")] = None,
    on_fewer: Annotated[
        list[int] | None,
        typer.Option(help="Instead of every kind: the kind that ships, on so many photographs."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Whose latents of the training photographs.")] = "mini",
    photos: PhotosOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Entropy models of every kind, or on fewer and fewer photographs, trained alike, to be compared."""
    settings, device = parallel.own(read_config("entropy", config, CodecConfig), device)
    names = only or list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise BadInputError(f"no entropy model {unknown[0]!r}; known: {', '.join(VARIANTS)}")
    frozen_backbone = Backbone.from_pretrained(backbone, device)
    pixels = _photos(photos, settings.photos_limit)
    crops = LatentCrops(
        None, _latents(frozen_backbone.vae, frozen_backbone.encode, pixels, out, device), settings.crop
    )
    if not on_fewer:
        train_variants(settings, frozen_backbone, crops, out, names, device)
        return
    if not 1 <= min(on_fewer) <= max(on_fewer) <= len(crops.latents):
        raise BadInputError(f"--on-fewer {on_fewer}: expected 1 to {len(crops.latents)} photographs")
    train_on_fewer(settings, frozen_backbone, crops, out, on_fewer, device)


@app.command()
def export(
    autoencoder: Annotated[
        list[Path], typer.Option(help="Runs of the autoencoder recipe; the later one counts.")
    ],
    denoiser: Annotated[Path, typer.Option(help="Run of the denoiser recipe.")],
    out: Annotated[Path, typer.Option(help="Folder of the new backbone.")],
    name: Annotated[str | None, typer.Option(help="Its name (default: the folder's).")] = None,
    latent_space: Annotated[
        str, typer.Option(help="Name of its latents' space: codec weights made for that space serve it.")
    ] = STABLE_DIFFUSION_SPACE,
    force: ForceOption = False,
) -> None:
    """Write a backbone folder (half precision, diffusers layout) from two runs."""
    _check_folder(out, force)
    export_backbone(autoencoder, denoiser, out, name or out.resolve().name, latent_space)


@app.command()
def export_codec_weights(
    run: Annotated[Path, typer.Option(help="Run of the codec recipe.")],
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    force: ForceOption = False,
) -> None:
    """Write codec weights (P_phi, entropy model in integers, probability tables) from a run."""
    if out.exists():
        check_target(out, force)
    export_codec(run, out)


@app.command()
def card(
    folder: Annotated[
        Path, typer.Argument(help="Backbone folder made by export; the card is its README.md.")
    ],
    hardware: Annotated[str, typer.Option(help="What it was trained on, in words.")],
    note: Annotated[str, typer.Option(help="What a reader must know about the training.")] = "",
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = None,
) -> None:
    """Measure a backbone's weights and write its model card."""
    images = datasets.load(dataset, limit)
    backbone = Backbone.from_pretrained(folder)
    trip = round_trip(backbone, images, load_taesd(locate("taesd").path))
    table = denoising(backbone, images)
    (folder / "README.md").write_text(model_card(folder, trip, table, images, hardware, note))


@app.command("codec-card")
def codec_weights_card(
    folder: Annotated[Path, typer.Argument(help="Folder of codec weights; the card is its README.md.")],
    run: Annotated[
        list[str],
        typer.Option(help="WEIGHTS=FOLDER: a run behind these weights; once for each run, in order."),
    ],
    note: Annotated[str, typer.Option(help="What a reader must know about the training.")] = "",
) -> None:
    """Keep how codec weights were trained beside them, and write their model card."""
    history: dict[str, dict[str, Any]] = {}
    for named in run:
        name, _, where = named.partition("=")
        if not (Path(where) / "losses.csv").is_file():
            raise BadInputError(f"--run {named}: expected WEIGHTS=FOLDER with the folder of a run")
        history.setdefault(name, {})[Path(where).name] = run_history(Path(where))
    told = codec_card(folder, history, note)
    write_atomically(folder / "training.json", json.dumps(history, indent=1).encode(), force=True)
    write_atomically(folder / "README.md", told.encode(), force=True)
