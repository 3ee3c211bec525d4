"""The command line with a small random codec that is loaded already."""

from pathlib import Path

import pytest
import torch

from diffusion_codec import cli
from diffusion_codec.codec import Codec
from tests.tiny import tiny_codec


@pytest.fixture
def codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Codec:
    torch.set_num_threads(1)
    made = tiny_codec(tmp_path / "weights")
    monkeypatch.setattr(cli, "_load_codec", lambda *arguments: made)
    return made
