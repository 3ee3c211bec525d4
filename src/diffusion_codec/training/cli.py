"""``diffusion-codec train autoencoder | denoiser | codec``."""

from importlib import resources
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer
import yaml
from pydantic import ValidationError

from diffusion_codec.errors import BadInputError
from diffusion_codec.training.loop import LoopConfig, train

app = typer.Typer(help="Train the small backbone and the codec's own networks.", no_args_is_help=True)
Config = TypeVar("Config", bound=LoopConfig)

ConfigOption = Annotated[str, typer.Option(help="full, cpu, smoke, or a YAML file.")]
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
StopOption = Annotated[
    int | None, typer.Option(help="Stop after this many steps in all; run again to continue.")
]


def read_config(recipe: str, name: str, model: type[Config]) -> Config:
    """The typed configuration ``configs/<recipe>-<name>.yaml``, or any YAML file.

    Raises:
        BadInputError: no such file, or a key or value the recipe does not know.
    """
    folder = Path(str(resources.files("diffusion_codec"))) / "training" / "configs"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{recipe}-{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem.removeprefix(f"{recipe}-") for p in folder.glob(f"{recipe}-*.yaml"))
        raise BadInputError(
            f"no configuration {name!r} for {recipe}; known: {', '.join(known)}, or a YAML file"
        )
    try:
        return model.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadInputError(f"{path}: {problems}") from None


def _photos_and_latents(photos: Path | None, teacher: Path | None, out: Path, limit: int | None, device: str):  # type: ignore[no-untyped-def]
    from diffusion_codec.fetch import locate
    from diffusion_codec.training.photos import load_photos
    from diffusion_codec.training.teacher import teacher_latents

    pixels = load_photos(photos or locate("train-photos").path, limit)
    cache = out.parent / "cache" / f"teacher-{len(pixels)}.safetensors"
    return pixels, teacher_latents(pixels, teacher or locate("taesd").path, cache, device)


@app.command()
def autoencoder(
    out: OutOption,
    config: ConfigOption = "cpu",
    photos: PhotosOption = None,
    teacher: TeacherOption = None,
    device: DeviceOption = "cpu",
    stop_after: StopOption = None,
) -> None:
    """Encoder by latent distillation, decoder by reconstruction."""
    from diffusion_codec.training.autoencoder import AutoencoderConfig, AutoencoderRecipe

    settings = read_config("autoencoder", config, AutoencoderConfig)
    pixels, latents = _photos_and_latents(photos, teacher, out, settings.photos_limit, device)
    train(AutoencoderRecipe(settings, pixels, latents, device), out, stop_after)


@app.command()
def denoiser(
    out: OutOption,
    config: ConfigOption = "cpu",
    photos: PhotosOption = None,
    teacher: TeacherOption = None,
    device: DeviceOption = "cpu",
    stop_after: StopOption = None,
) -> None:
    """Epsilon-prediction on Stable Diffusion's schedule."""
    from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe

    settings = read_config("denoiser", config, DenoiserConfig)
    _, latents = _photos_and_latents(photos, teacher, out, settings.photos_limit, device)
    train(DenoiserRecipe(settings, latents, device), out, stop_after)


def set_threads(count: int) -> None:
    """Limit PyTorch's threads, so that two recipes can share a machine."""
    torch.set_num_threads(count)
