"""What a wheel of the package carries: with it alone, names of models and data sets are known."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
ASK = "from diffusion_codec import fetch; print(fetch.__file__, *fetch.manifest().entries)"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of a wheel, built from the archive of sources as `python -m build` does."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    shutil.copytree(ROOT / "src", clone / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    (clone / "data").mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "data/manifest.toml"):
        shutil.copyfile(ROOT / name, clone / name)
    with tarfile.open(built(clone, "sdist")) as sources:
        sources.extractall(folder, filter="data")
    (unpacked,) = folder.glob("diffusion_codec-*/")
    with zipfile.ZipFile(built(unpacked, "wheel")) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def built(source: Path, what: str) -> Path:
    """A sdist or wheel, made in `source`."""
    command = [sys.executable, "-c", BUILD.format(what, str(source))]
    made = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return source / made.stdout.split()[-1]


def test_a_wheel_knows_models_and_data_sets(installed: Path) -> None:
    command = [sys.executable, "-c", ASK]
    asked = subprocess.run(
        command, cwd=installed, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=True
    )
    module, *names = asked.stdout.split()
    assert Path(module).is_relative_to(installed)
    assert {"stable-diffusion-v1-2", "stable-diffusion-v1-5", "stable-diffusion-v2-1", "kodak"} <= set(names)


def test_a_wheel_carries_the_weights(installed: Path) -> None:
    there = {path.name for path in (installed / "diffusion_codec" / "weights").rglob("*.safetensors")}
    assert {"paper-2025.safetensors", "diffusion_pytorch_model.safetensors"} <= there
