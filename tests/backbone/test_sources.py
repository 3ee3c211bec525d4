"""From a name to a checked folder, over a hub on loopback: fetched, resumed, refused, second source, offline."""

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from diffusion_codec import bitstream, cli, fetch
from diffusion_codec.backbone import Backbone, options, prompt, sources
from diffusion_codec.backbone import model as running
from diffusion_codec.backbone.cli import app
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError, MissingDataError
from tests.backbone.conftest import REVISION, Hub, entry
from tests.tiny import tiny_weights_file

UNET = "unet/diffusion_pytorch_model.safetensors"


def knows(monkeypatch: pytest.MonkeyPatch, **entries: fetch.Entry) -> None:
    monkeypatch.setattr(fetch, "manifest", lambda: fetch.Manifest(schema=1, entries=entries))


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, hub: Hub, tiny_models: dict[int, Path]) -> str:
    """A model of the manifest with two repositories."""
    for repository in ("first/tiny", "second/tiny"):
        hub.add(repository, tiny_models[1])
    addresses = [
        f"{sources.HUB}/{name}/resolve/{REVISION}/{{name}}" for name in ("first/tiny", "second/tiny")
    ]
    knows(monkeypatch, tiny=entry(tiny_models[1], addresses))
    return "tiny"


def test_one_name_is_all_a_user_needs_to_compress(
    pinned: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_weights_file(tmp_path / "codec.safetensors")
    codec = Codec.from_pretrained(pinned, weights)
    assert codec.backbone.name == "tiny"
    said = capsys.readouterr().err
    for words in ("a tiny model", "fetching 0.0", "GB to", str(tmp_path / "cache" / "tiny"), "OpenRAIL-M"):
        assert words in said
    fetched = len(hub.asked)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    data = codec.compress(pixels).data
    again = Codec.from_pretrained(pinned, weights)
    assert again.decompress(data).pixels.shape == pixels.shape
    assert len(hub.asked) == fetched  # everything is in the cache, the empty prompt too


def test_the_command_line_fetches_compresses_and_decompresses(
    pinned: str, photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed, back = tmp_path / "photo.dfc", tmp_path / "back.png"
    for arguments in (
        ["compress", photo, packed, "--backbone", pinned, "--low-memory"],
        ["decompress", packed, back, "--backbone", pinned, "--precision", "bfloat16", "--steps", "1"],
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        assert exit_.value.code == 0
    said = capfd.readouterr().err
    assert said.count("a tiny model: fetching") == 2  # the model, and its text encoder once
    assert Image.open(back).size == Image.open(photo).size


def test_the_command_of_the_real_model_lacks_nothing_but_its_weights(
    hub: Hub,
    photo: Path,
    tiny_models: dict[int, Path],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The project's own manifest and codec weights; a tiny model where CompVis's lies; a GPU where there is none."""
    hub.add("CompVis/stable-diffusion-v1-2", tiny_models[1])
    asked: list[str] = []

    def any_device(device: str) -> torch.device:
        asked.append(str(device))
        return torch.device("cpu")

    for module in (running, options):
        monkeypatch.setattr(module, "checked_device", any_device)
    jpeg, packed = photo.with_suffix(".jpg"), photo.with_suffix(".dfc")
    Image.open(photo).save(jpeg)
    command = ["compress", jpeg, packed, "--backbone", "stable-diffusion-v1-2", "--device", "cuda"]
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(argument) for argument in command])
    said = [line for line in capfd.readouterr().err.splitlines() if "Licence: " in line]
    assert (exit_.value.code, set(asked)) == (0, {"cuda"}), said
    folder = own_cache / "stable-diffusion-v1-2"
    assert len(said) == 3
    assert "recording the hashes of CompVis/stable-diffusion-v1-2" in said[0]
    for line in said:  # before the small files, the model and its text encoder
        assert re.search(
            rf"^Stable Diffusion V1\.2, .* fetching .*\d [MG]B,? to {folder}\. Licence: .*OpenRAIL-M", line
        )
    assert (folder / UNET).read_bytes() == (tiny_models[1] / UNET).read_bytes()
    header = bitstream.read(packed.read_bytes()).header
    assert (header.width, header.height) == Image.open(photo).size


def test_a_broken_transfer_resumes(pinned: str, hub: Hub, own_cache: Path) -> None:
    part = own_cache / "tiny" / f"{UNET}.part"
    part.parent.mkdir(parents=True)
    content = hub.server.files[f"/first/tiny/resolve/{REVISION}/{UNET}"]
    part.write_bytes(content[:1000])
    folder = sources.find(pinned).folder
    assert (folder / UNET).read_bytes() == content
    assert (f"/first/tiny/resolve/{REVISION}/{UNET}", "bytes=1000-") in hub.server.seen


def test_a_vanished_repository_is_passed_over(pinned: str, hub: Hub) -> None:
    hub.remove("first/tiny")
    assert (sources.find(pinned).folder / UNET).is_file()
    assert f"/second/tiny/resolve/{REVISION}/{UNET}" in hub.asked


def test_wrong_bytes_are_quarantined_and_the_second_source_is_asked(
    pinned: str, hub: Hub, own_cache: Path
) -> None:
    path = f"/first/tiny/resolve/{REVISION}/{UNET}"
    hub.server.files[path] = bytes(len(hub.server.files[path]))
    folder = sources.find(pinned).folder
    assert (folder / UNET).read_bytes() == hub.server.files[path.replace("first", "second")]
    assert list((own_cache / "tiny" / "unet" / "quarantine").iterdir())


def test_wrong_bytes_everywhere_are_an_error_and_no_model(pinned: str, hub: Hub, own_cache: Path) -> None:
    for repository in ("first", "second"):
        path = f"/{repository}/tiny/resolve/{REVISION}/{UNET}"
        hub.server.files[path] = bytes(len(hub.server.files[path]))
    with pytest.raises(MissingDataError, match="SHA-256 is"):
        sources.find(pinned)
    assert not (own_cache / "tiny" / UNET).exists()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "DIFFUSION_CODEC_OFFLINE"])
@pytest.mark.parametrize("name", ["tiny", "first/tiny"])
def test_offline_asks_nobody(
    variable: str, name: str, pinned: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(MissingDataError, match="switched off"):
        sources.find(name)
    assert hub.asked == []


def test_offline_uses_what_is_here(pinned: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    Backbone.from_pretrained(pinned)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Backbone.from_pretrained(pinned).name == "tiny"


def test_no_space_on_the_disk_is_said_before_anything_is_fetched(
    pinned: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MissingDataError, match=r"needs 0\.0. GB more .* DIFFUSION_CODEC_CACHE"):
        sources.find(pinned)
    assert hub.asked == []


def test_a_mirror_needs_no_network(
    pinned: str, hub: Hub, tiny_models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_models[1], tmp_path / "mirror" / "weights" / "tiny")
    monkeypatch.setenv("DIFFUSION_CODEC_MIRROR", str(tmp_path / "mirror"))
    knows(monkeypatch, tiny=entry(tiny_models[1], [], mirror="weights/tiny"))
    assert Backbone.from_pretrained(pinned).empty_prompt.shape == (1, 12, 32)
    assert hub.asked == []


def test_the_first_use_records_what_later_uses_hold_to(
    hub: Hub, tiny_models: dict[int, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("owner/tiny", tiny_models[2])
    assert Backbone.from_pretrained("owner/tiny").prediction == "v_prediction"
    pins = json.loads((own_cache / "owner--tiny" / "pins.json").read_text())
    assert (pins["repository"], pins["revision"]) == ("owner/tiny", REVISION)
    recorded = {file["name"]: file["sha256"] for file in pins["files"] + pins["text_encoder"]}
    for name, sha256 in recorded.items():
        assert sha256 == fetch.sha256_of(tiny_models[2] / name), name
    (own_cache / "owner--tiny" / UNET).unlink()
    path = f"/owner/tiny/resolve/{REVISION}/{UNET}"
    hub.server.files[path] = bytes(len(hub.server.files[path]))
    with pytest.raises(MissingDataError, match="SHA-256 is"):
        sources.find("owner/tiny")


def test_an_unpinned_name_takes_the_first_repository_that_answers(
    hub: Hub, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("second/tiny", tiny_models[1])
    changes = {"files": [], "text_encoder": [], "first_use": ["gone/tiny", "second/tiny"]}
    knows(monkeypatch, tiny=entry(tiny_models[1], [], **changes))
    assert sources.find("tiny").folder.name == "tiny"
    hub.remove("second/tiny")
    assert sources.find("tiny").folder.name == "tiny"


def test_nothing_is_mixed_of_two_repositories(
    hub: Hub, tiny_models: dict[int, Path], tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one breaks off after its configurations; the hub has no hash of them."""
    folder = shutil.copytree(tiny_models[1], tmp_path / "other")
    (folder / "vae" / "config.json").write_text("{}")
    hub.add("first/tiny", folder)
    del hub.server.files[f"/first/tiny/resolve/{REVISION}/tokenizer/vocab.json"]
    hub.add("second/tiny", tiny_models[1])
    changes = {"files": [], "text_encoder": [], "first_use": ["first/tiny", "second/tiny"]}
    knows(monkeypatch, tiny=entry(tiny_models[1], [], **changes))
    found = sources.find("tiny").folder
    assert f"/first/tiny/resolve/{REVISION}/vae/config.json" in hub.asked
    for name in ("vae/config.json", "unet/config.json", UNET):
        assert (found / name).read_bytes() == (tiny_models[1] / name).read_bytes()


def test_two_that_come_first_record_once(hub: Hub, tiny_models: dict[int, Path], own_cache: Path) -> None:
    hub.add("owner/tiny", tiny_models[1])
    found: list[Path] = []
    both = [threading.Thread(target=lambda: found.append(sources.find("owner/tiny").folder)) for _ in "ab"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert found == [own_cache / "owner--tiny"] * 2
    assert hub.asked.count("/api/models/owner/tiny") == 1


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("vae/config.json", {"scaling_factor": 0.13025}, r"scaling factor is 0\.13025"),
        ("vae/config.json", {"latent_channels": 16}, r"4 latent channels; this model has 16"),
        ("unet/config.json", {"in_channels": 9}, r"9 \(into the denoiser\)"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction 'sample'"),
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_are_fetched(
    file: str,
    values: dict[str, object],
    message: str,
    hub: Hub,
    tiny_models: dict[int, Path],
    tmp_path: Path,
    own_cache: Path,
) -> None:
    folder = shutil.copytree(tiny_models[1], tmp_path / "other")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))
    hub.add("owner/other", folder)
    with pytest.raises(BadInputError, match=message):
        sources.find("owner/other")
    assert not [path for path in hub.asked if path.endswith(".safetensors")]
    assert not (own_cache / "owner--other" / "pins.json").exists()


def test_damaged_records_of_the_first_use_are_named(
    hub: Hub, tiny_models: dict[int, Path], own_cache: Path
) -> None:
    hub.add("owner/tiny", tiny_models[1])
    sources.find("owner/tiny")
    pins = own_cache / "owner--tiny" / "pins.json"
    for damage in (pins.read_text()[:100], "[]", '{"files": [], "text_encoder": []}'):
        pins.write_text(damage)
        with pytest.raises(
            BadInputError, match=r"pins\.json is damaged: .*; remove it, and the hub is asked"
        ):
            sources.find("owner/tiny")


def test_a_cache_that_cannot_be_written(hub: Hub, tiny_models: dict[int, Path], own_cache: Path) -> None:
    hub.add("owner/tiny", tiny_models[1])
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(MissingDataError, match=r"cannot be written: .* set DIFFUSION_CODEC_CACHE"):
        sources.find("owner/tiny")


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(MissingDataError, match=r"owner/gone: .* 404; it is gone, renamed or behind a login"):
        sources.find("owner/gone")


def test_a_repository_of_pickles_is_refused(hub: Hub, tiny_models: dict[int, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models[1], tmp_path / "pickled")
    (folder / UNET).rename((folder / UNET).with_suffix(".bin"))
    hub.add("owner/pickled", folder)
    with pytest.raises(BadInputError, match="diffusion-codec backbone convert"):
        sources.find("owner/pickled")


def test_a_repository_that_is_no_stable_diffusion(
    hub: Hub, tiny_models: dict[int, Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    hub.add("owner/other", tmp_path / "other")
    with pytest.raises(BadInputError, match="no Stable Diffusion in the layout of diffusers"):
        sources.find("owner/other")


def test_half_precision_is_preferred(hub: Hub, tiny_models: dict[int, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models[1], tmp_path / "both")
    shutil.copy(folder / UNET, folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    hub.add("owner/both", folder)
    names = {path.name for path in (sources.find("owner/both").folder / "unet").glob("*.safetensors")}
    assert names == {"diffusion_pytorch_model.fp16.safetensors"}
    Backbone.from_pretrained("owner/both")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        MissingDataError, match=r"embedded: mini, small; to be fetched: .*stable-diffusion-v1-5"
    ):
        sources.find("stable-diffusion-v9")


def test_the_real_models_are_pinned_or_say_that_they_are_not() -> None:
    known = sources.known()
    assert set(known) == {"stable-diffusion-v1-2", "stable-diffusion-v1-5", "stable-diffusion-v2-1"}
    for name, model in known.items():
        assert "RAIL" in model.licence
        assert bool(model.files) != bool(model.first_use), name
        needed = {"scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"}
        assert not model.files or needed < {file.name for file in model.files}
        assert not model.files or set(sources.TEXT_FILES) < {file.name for file in model.text_encoder}
        assert all("/resolve/" in source and source.endswith("/{name}") for source in model.sources)


def test_commands_list_fetch_and_make(pinned: str, hub: Hub, tmp_path: Path) -> None:
    run = CliRunner()
    assert "not on this machine" in run.invoke(app, ["list"]).output
    fetched = run.invoke(app, ["fetch", "tiny"])
    assert "empty prompt of 12 tokens x 32" in fetched.output
    assert "hashes pinned; on this machine" in run.invoke(app, ["list"]).output
    made = run.invoke(app, ["random", str(tmp_path / "random"), "--shape", "tiny-2"])
    assert "million random parameters" in made.output
    assert Backbone.from_pretrained(tmp_path / "random").prediction == "v_prediction"


def test_a_damaged_one_is_listed_as_damaged_beside_the_others(
    hub: Hub, tiny_models: dict[int, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("owner/tiny", tiny_models[1])
    changes = {"files": [], "text_encoder": [], "first_use": ["owner/tiny"]}
    model = entry(tiny_models[1], [], **changes)
    knows(monkeypatch, first=model, second=model, third=model)
    for name in ("first", "second"):
        prompt.load(sources.find(name))
    (own_cache / "first" / "pins.json").write_text("{}")
    listed = CliRunner().invoke(app, ["list"])
    assert listed.exit_code == 0, listed.output
    lines = listed.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["mini", "small", "first", "second", "third"]
    assert re.search(r"; damaged: .*pins\.json is damaged", lines[2])
    assert lines[3].endswith("; on this machine")
    assert lines[4].endswith("; not on this machine")
    assert [prompt.at_hand(name) for name in ("first", "second", "third")] == [False, True, False]


def test_a_folder_called_like_a_backbone_needs_a_separator(
    pinned: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mini", pinned, "mine"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert sources.find("mini").folder == sources.embedded_folder("mini")
    cli._make_ready(pinned, "cpu")
    assert (own_cache / pinned / UNET).is_file()  # fetched before the work
    assert sources.find(pinned).folder == own_cache / pinned
    for name in ("mini", pinned):
        assert sources.find(f"./{name}").folder == sources.find(Path(name)).folder == Path(name)
    assert sources.find("mine").folder == Path("mine")
