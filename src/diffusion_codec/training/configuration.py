"""Typed configurations of the recipes, from YAML."""

from importlib import resources
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from diffusion_codec.errors import BadInputError
from diffusion_codec.training.loop import LoopConfig

Config = TypeVar("Config", bound=LoopConfig)


def read_config(recipe: str, name: str, model: type[Config]) -> Config:
    """The typed configuration ``configs/<recipe>-<name>.yaml``, or any YAML file.

    Raises:
        BadInputError: no such file, no YAML in it, or a key or value the recipe does not know.
    """
    folder = Path(str(resources.files("diffusion_codec"))) / "training" / "configs"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{recipe}-{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem.removeprefix(f"{recipe}-") for p in folder.glob(f"{recipe}-*.yaml"))
        raise BadInputError(
            f"no configuration {name!r} for {recipe}; known: {', '.join(known)}, or a YAML file"
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(settings, dict):
            raise BadInputError(f"{path} holds no settings; expected lines like `steps: 100`")
        return model.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadInputError(f"{path}: {problems}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
