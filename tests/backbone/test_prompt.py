"""The empty prompt's embedding: the pipeline's own, computed once, then neither text encoder nor tokenizer."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from diffusion_codec import codec_weights
from diffusion_codec.backbone import Backbone, prompt, sources
from diffusion_codec.backbone.cli import app
from diffusion_codec.backbone.sources import Source
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.evaluation import choices
from diffusion_codec.files import TargetExistsError
from tests.tiny import tiny_weights_file


@pytest.mark.parametrize("text", ["", "a photograph"])
@pytest.mark.parametrize("generation", [1, 2])
def test_it_is_what_diffusers_own_pipeline_computes(
    generation: int, text: str, tiny_models: dict[int, Path]
) -> None:
    folder = tiny_models[generation]
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    expected, _ = pipeline.encode_prompt(text, "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(prompt.compute(folder, text), expected, rtol=0, atol=0)
    if not text:
        torch.testing.assert_close(prompt.load(sources.find(folder)), expected, rtol=0, atol=0)


def test_padding_differs_between_the_generations(tiny_models: dict[int, Path]) -> None:
    ids = [
        CLIPTokenizer.from_pretrained(tiny_models[g] / "tokenizer")(
            "", padding="max_length", max_length=12
        ).input_ids
        for g in (1, 2)
    ]
    assert ids[0] == [5, *[6] * 11]
    assert ids[1] == [5, 6, *[0] * 10]


def test_once_computed_no_text_encoder_is_loaded(
    tiny_models: dict[int, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prompt.load(sources.find(tiny_models[1]))
    assert len(list((own_cache / "empty_prompts").iterdir())) == 1
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert torch.equal(prompt.load(sources.find(tiny_models[1])), first)
    with pytest.raises(MissingDataError, match=r"pip install '\.\[stable-diffusion\]'"):
        prompt.load(sources.find(tiny_models[2]))


def test_without_transformers_the_text_encoder_is_not_even_fetched(
    tiny_models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(None, tmp_path, "key", lambda: pytest.fail("the text encoder was fetched"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDataError, match=r"pip install '\.\[stable-diffusion\]'"):
        prompt.load(source)


def test_a_file_of_the_package_comes_before_the_text_encoder(
    tiny_models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shipped"
    monkeypatch.setattr(prompt, "shipped_folder", lambda: out)
    monkeypatch.setattr(prompt, "compute", lambda folder: pytest.fail("the text encoder was run"))
    embedding = torch.randn(1, 12, 32)
    prompt.write(out / f"{prompt.folder_key(tiny_models[1])}.safetensors", embedding, "key")
    assert torch.equal(prompt.load(sources.find(tiny_models[1])), embedding)


def test_a_file_beside_the_model_comes_first(tiny_models: dict[int, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models[1], tmp_path / "model")
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(MissingDataError, match="text_encoder/ and tokenizer/"):
        Backbone.from_pretrained(folder)
    stored = CliRunner().invoke(app, ["prompt", str(tiny_models[1]), str(folder / prompt.FILE)])
    assert stored.exit_code == 0, stored.output
    again = CliRunner().invoke(app, ["prompt", str(tiny_models[2]), str(folder / prompt.FILE)])
    assert isinstance(again.exception, TargetExistsError)
    assert torch.equal(
        Backbone.from_pretrained(folder).empty_prompt, Backbone.from_pretrained(tiny_models[1]).empty_prompt
    )


def test_a_damaged_file_is_not_used(tmp_path: Path) -> None:
    prompt.write(tmp_path / "a.safetensors", torch.zeros(1, 12, 32), "key")
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BadInputError, match="damaged"):
        prompt.read(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="no embedding"):
        prompt.read(tmp_path / "b.safetensors")


def test_an_existing_file_is_replaced_when_that_is_asked_for(
    tiny_models: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "prompt.safetensors"
    out.write_bytes(b"old")
    stored = CliRunner().invoke(app, ["prompt", str(tiny_models[1]), str(out), "--force"])
    assert stored.exit_code == 0, stored.output
    assert prompt.read(out).shape == (1, 12, 32)


def test_another_text_encoders_embedding_is_refused(tiny_models: dict[int, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models[2], tmp_path / "model")
    save_file({"embedding": torch.zeros(1, 12, 32)}, folder / prompt.FILE)
    with pytest.raises(BadInputError, match="32 numbers a token, the denoiser of model expects 64"):
        Backbone.from_pretrained(folder)


def test_a_choice_of_prompt_changes_the_denoiser_and_nothing_else(
    tiny_models: dict[int, Path], tmp_path: Path
) -> None:
    backbone = Backbone.from_pretrained(tiny_models[1])
    (asked, *_) = choices.asked(choices.CHOICES, ["text"])
    texts = choices.embeddings(backbone, str(tiny_models[1]), [asked])
    weights = codec_weights.load(tiny_weights_file(tmp_path / "weights.safetensors"))
    codec = choices.prepared(asked, backbone, weights, [], texts)
    y, t = torch.randn(1, 4, 8, 8), torch.tensor([200.0])
    assert not torch.allclose(codec.backbone.epsilon(y, t), backbone.epsilon(y, t), atol=1e-5)
    assert codec.backbone.unet is backbone.unet
    assert choices.embeddings(Backbone.from_pretrained("mini"), "mini", [asked]) == {}
