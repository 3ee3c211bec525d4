"""Tiny Stable Diffusions on disk, and a hub on loopback that serves them."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_codec import fetch
from diffusion_codec.backbone.random_model import write_random
from tests.test_fetch import Server

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKENS = 12
WIDTHS = {1: 32, 2: 64}
PAD = {1: "<|endoftext|>", 2: "!"}


def write_text_encoder(folder: Path, generation: int) -> None:
    """text_encoder/ and tokenizer/ of the hub's layout; the two generations pad differently, as the real ones do."""
    vocabulary = ["!", '"', "a", "!</w>", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(generation)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTHS[generation],
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=5,
        eos_token_id=6,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": PAD[generation],
    }
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    about = special | {"model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(about))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """SD-1.x-like (epsilon) and SD-2.x-like (v) folders without the file of the empty prompt: the hub's layout."""
    folders = {}
    for generation in (1, 2):
        folder = tmp_path_factory.mktemp("models") / f"tiny-{generation}"
        write_random(folder, f"tiny-{generation}", torch.float32)
        (folder / "empty_prompt.safetensors").unlink()
        write_text_encoder(folder, generation)
        folders[generation] = folder
    return folders


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_CODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIFFUSION_CODEC_MIRROR", "")
    for name in ("HF_HUB_OFFLINE", "DIFFUSION_CODEC_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


class Hub:
    """Repositories of a folder's files, as the real hub answers for them."""

    def __init__(self, server: Server):
        self.server = server

    def add(self, repository: str, folder: Path, large: int = 10_000) -> None:
        tree: list[dict[str, Any]] = [{"type": "directory", "path": "unet", "size": 0}]
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name, content = path.relative_to(folder).as_posix(), path.read_bytes()
            item: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            if len(content) >= large:
                item["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
            tree.append(item)
            self.server.files[f"/{repository}/resolve/{REVISION}/{name}"] = content
        self.server.files[f"/api/models/{repository}"] = json.dumps({"sha": REVISION}).encode()
        self.server.files[f"/api/models/{repository}/tree/{REVISION}?recursive=true"] = json.dumps(
            tree
        ).encode()

    def remove(self, repository: str) -> None:
        for path in [p for p in self.server.files if repository in p]:
            del self.server.files[path]

    @property
    def asked(self) -> list[str]:
        return [path for path, _ in self.server.seen]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    yield Hub(server)
    server.shutdown()
    thread.join()
    server.server_close()


def entry(folder: Path, sources: list[str], **changes: object) -> fetch.Entry:
    """A manifest entry that pins the folder's files."""

    def pinned(name: str) -> dict[str, object]:
        content = (folder / name).read_bytes()
        return {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    text = [n for n in names if n.startswith(("text_encoder/", "tokenizer/"))]
    settings: dict[str, object] = {
        "kind": "backbone",
        "title": "a tiny model",
        "licence": "OpenRAIL-M",
        "homepage": "https://example.org/",
        "use": "tests",
        "sources": sources,
        "files": [pinned(n) for n in names if n not in text],
        "text_encoder": [pinned(n) for n in text],
    }
    return fetch.Entry.model_validate(settings | changes)
