"""What the command line refuses without fetching anything."""

from pathlib import Path

import pytest
import torch

from diffusion_codec import cli
from tests.backbone.conftest import Hub


@pytest.mark.parametrize("verb", ["compress", "decompress"])
@pytest.mark.parametrize(
    ("device", "words"), [("cuda", "this machine has no GPU"), ("gpu", "'gpu' is no device")]
)
def test_no_gpu_is_said_before_the_model_is_fetched(
    verb: str,
    device: str,
    words: str,
    hub: Hub,
    tiny_models: dict[int, Path],
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hub.add("owner/tiny", tiny_models[1])
    given = {"compress": photo, "decompress": tmp_path / "photo.dfc"}[verb]
    if verb == "decompress":
        ends(["compress", photo, given], 0)
    ends([verb, given, tmp_path / "out.png", "--backbone", "owner/tiny", "--device", device], 1)
    said = capfd.readouterr().err.splitlines()
    assert words in said[-1]
    assert hub.asked == []


def test_a_picture_that_is_not_there_is_said_before_the_model_is_fetched(
    hub: Hub, tiny_models: dict[int, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add("owner/tiny", tiny_models[1])
    ends(["compress", tmp_path / "nowhere.jpg", tmp_path / "out.dfc", "--backbone", "owner/tiny"], 1)
    assert "nowhere.jpg' does not exist" in capfd.readouterr().err
    assert hub.asked == []


def ends(arguments: list[object], code: int) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(argument) for argument in arguments])
    assert exit_.value.code == code
