"""Inside programs of others: what torch was told around a codec, other threads, shared weights, random numbers."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_codec import bitstream, codec_weights
from diffusion_codec.codec import Codec
from diffusion_codec.entropy.coder import LatentCoder
from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.refinement import refine
from diffusion_codec.undisturbed import undisturbed
from tests.needed import needs_squeeze
from tests.tiny import tiny_backbone, tiny_codec, tiny_weights_file

PIXELS = np.random.default_rng(5).integers(0, 256, (40, 64, 3), dtype=np.uint8)
OTHER_PIXELS = np.random.default_rng(6).integers(0, 256, (16, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(tmp_path_factory.mktemp("codec"), hyper_channels=2)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "default device": partial(default_device, "meta"),
    "device": partial(torch.device, "meta"),
    "inference": torch.inference_mode,
}


@pytest.fixture(params=SURROUNDINGS)
def surrounding(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[object]]:
    return SURROUNDINGS[request.param]


def test_files_and_pictures_are_the_same_whatever_surrounds_the_codec(
    codec: Codec, surrounding: Callable[[], AbstractContextManager[object]]
) -> None:
    plain = codec.compress(PIXELS, dither_seed=3)
    sized = codec.compress_to_size(PIXELS, 700)
    back = codec.decompress(plain.data, seed=4).pixels
    ceiling = codec.autoencode(PIXELS)
    file = bitstream.read(plain.data)
    z_hat = codec.symbols(file)
    with surrounding():
        assert codec.compress(codec.analyse(PIXELS), dither_seed=3).data == plain.data
        assert codec.compress_to_size(PIXELS, 700).data == sized.data
        assert np.array_equal(codec.decompress(plain.data, seed=4).pixels, back)
        assert np.array_equal(codec.autoencode(PIXELS), ceiling)
        assert codec.pack(codec.symbols(file), file.header) == plain.data
    assert torch.equal(codec.symbols(file), z_hat)


@needs_squeeze
def test_a_codec_loaded_anywhere_makes_the_same_files_and_can_be_refined(
    surrounding: Callable[[], AbstractContextManager[object]],
) -> None:
    plain = Codec.from_pretrained()
    file = plain.compress(PIXELS)
    refined = refine(plain, PIXELS, file, 2)
    with surrounding():
        loaded = Codec.from_pretrained()
        weights = codec_weights.load(codec_weights.find("paper-2024"))
    assert loaded.compress(PIXELS).data == file.data
    assert np.array_equal(loaded.decompress(file.data).pixels, plain.decompress(file.data).pixels)
    assert refine(loaded, PIXELS, file, 2).data == refined.data
    with surrounding():
        assert refine(plain, PIXELS, file, 2).data == refined.data
    tensors = (*loaded.backbone.parameters(), *weights.latent_coder.model.parameters())
    assert {(value.device.type, value.is_inference()) for value in tensors} == {("cpu", False)}


def test_what_surrounds_a_call_is_there_again_after_it() -> None:
    def look() -> tuple[bool, str]:
        return torch.is_autocast_enabled("cpu"), torch.empty(0).device.type

    inside = undisturbed(look)
    with torch.autocast("cpu"), torch.device("meta"):
        assert inside() == (False, "cpu")
        assert look() == (True, "meta")
    assert inside() == look() == (False, "cpu")
    modes = undisturbed(torch.overrides._get_current_function_mode_stack)()
    assert modes == []  # none is entered for nothing: it would slow every operation


def test_other_threads_make_whole_networks_while_a_codec_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, whole, seen = nn.Conv2d.__init__, nn.init.kaiming_uniform_, set()

    def make() -> None:
        seen.add((nn.Linear(4, 4).weight.device.type, nn.init.kaiming_uniform_ is whole))

    def meanwhile(layer: nn.Conv2d, *arguments: object, **named: object) -> None:
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        begin(layer, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.Conv2d, "__init__", meanwhile)
    Codec.from_pretrained()
    assert seen == {("cpu", True)}


def test_codecs_are_loaded_in_threads_at_once() -> None:
    register = nn.Module.register_parameter
    made: list[bytes] = []

    def load() -> None:
        made.append(Codec.from_pretrained().compress(OTHER_PIXELS).data)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Codec.from_pretrained().compress(OTHER_PIXELS).data] * 4
    assert nn.Linear(2, 2).weight.device.type == "cpu"
    assert nn.Module.register_parameter is register


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda path: codec_weights.load(path), id="codec weights"),
        pytest.param(lambda path: Codec.from_pretrained(), id="codec"),
        pytest.param(lambda path: perceptual_loss("squeeze"), id="LPIPS", marks=needs_squeeze),
    ],
)
def test_loading_draws_no_random_number(tmp_path: Path, work: Callable[[Path], object]) -> None:
    path = tiny_weights_file(tmp_path / "codec.safetensors", hyper_channels=2)
    before = torch.get_rng_state()
    work(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_coder_draws_no_random_number(codec: Codec) -> None:
    own, before = codec.weights.latent_coder, torch.get_rng_state()
    made = LatentCoder(own.model.float(), own.gaussian, own.hyper)
    own.model.double()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.dtype == torch.float64 for parameter in made.model.parameters())


def test_other_embedded_weights_are_read_once(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_codec(tmp_path, seed=1).compress(OTHER_PIXELS).data
    monkeypatch.setattr(codec_weights, "_embedded", lambda: {"other": tmp_path / "codec.safetensors"})
    done: list[str] = []
    for name in ("load", "_fingerprint"):
        monkeypatch.setattr(codec_weights, name, counted(getattr(codec_weights, name), name, done))
    before = torch.get_rng_state()
    first = codec.decompress(data).pixels
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(done) == ["_fingerprint", "_fingerprint", "load"]
    assert np.array_equal(codec.decompress(data).pixels, first)
    assert len(done) == 3


def counted(function: Callable[[Path], object], name: str, done: list[str]) -> Callable[[Path], object]:
    def counting(path: Path) -> object:
        done.append(name)
        return function(path)

    return counting


def test_codecs_on_two_devices_share_their_weights(codec: Codec) -> None:
    data = codec.compress(PIXELS).data
    elsewhere = Codec(tiny_backbone().to("meta"), codec.weights)
    assert {parameter.device.type for parameter in elsewhere.p_phi.parameters()} == {"meta"}
    assert codec.compress(PIXELS).data == data
    assert {parameter.device.type for parameter in codec.weights.parameter_estimation.parameters()} == {"cpu"}


def test_results_can_be_compared_and_kept_in_a_set(codec: Codec) -> None:
    file = codec.compress(PIXELS)
    for make in (
        partial(codec.analyse, PIXELS),
        partial(codec.compress, PIXELS),
        partial(codec.decompress, file.data),
    ):
        one, other = make(), make()
        assert one == one
        assert one != other
        assert len({one, other}) == 2


def test_formats_are_made_known_to_pillow_when_they_are_needed_not_at_the_import() -> None:
    program = (
        "import sys; from PIL import Image; from diffusion_codec import image_io; "
        "print('HEIF' in Image.OPEN, 'pillow_heif' in sys.modules); "
        "print('.heic' in image_io.picture_suffixes(), 'HEIF' in Image.OPEN)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True", "True"]
