"""The same picture and options give the same bytes, wherever and however the program is started."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffusion_codec import datasets
from tests.survival import Row, Tally, full

BASE = {"OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}
ALL_AT_ONCE = {"OMP_NUM_THREADS": "2", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}
ONE_BY_ONE = {
    "8 threads": {"OMP_NUM_THREADS": "8"},
    "locale of Turkey": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "optimised Python, ASCII streams": {
        "PYTHONOPTIMIZE": "1",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
    },
}


def compressed(folder: Path, source: Path, environment: dict[str, str]) -> str:
    """SHA-256 of the file that a new process makes in ``folder``, of relative names."""
    folder.mkdir()
    shutil.copy(source, folder / "in.png")
    command = [sys.executable, "-m", "diffusion_codec", "compress", "in.png", "out.dfc", "--quality", "55"]
    subprocess.run(command, cwd=folder, env=os.environ | BASE | environment, check=True, capture_output=True)
    return hashlib.sha256((folder / "out.dfc").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "photo.png"
    pixels = next(iter(datasets.load("sample", limit=1))).pixels()
    Image.fromarray(pixels[:512, :512]).save(path)
    return path


def test_the_same_bytes_everywhere(source: Path, tmp_path: Path, tally: Tally) -> None:
    expected = compressed(tmp_path / "base", source, {})
    variants = {"another folder, locale, time zone, hash seed and 2 threads at once": ALL_AT_ONCE}
    variants |= ONE_BY_ONE if full() else {}
    same = {
        name: compressed(tmp_path / f"an other {number}", source, environment) == expected
        for number, (name, environment) in enumerate(variants.items())
    }
    assert all(same.values()), same
    what = "one photograph, the embedded model: " + "; ".join(variants)
    tally(Row("The same bytes", what, len(variants), sum(same.values()), accepted=sum(same.values())))
