"""The embedding of the empty prompt: the only thing the codec needs of a text encoder, computed once.

Looked for, in this order: ``empty_prompt.safetensors`` in the backbone's folder, then what the package ships and what
the cache holds, both by the hash of text encoder and tokenizer. Only where all three lack it is the text encoder loaded
(package ``transformers``), and what it gives is kept in the cache. Afterwards neither is touched again.
"""

import hashlib
import json
import threading
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffusion_codec import fetch
from diffusion_codec.backbone import sources
from diffusion_codec.backbone.layout import weights_file
from diffusion_codec.backbone.sources import Source
from diffusion_codec.errors import BadInputError, MissingDataError, how_to_install
from diffusion_codec.files import OutputError, write_atomically

FILE = "empty_prompt.safetensors"
TEXT_WEIGHTS = "model"
HERE = "on this machine"
_READING = threading.Lock()
"""transformers changes torch for the whole process while it reads: two readings that overlap could leave it so."""


def load(source: Source) -> Tensor:
    """The embedding, float32 (1, tokens, width).

    Raises:
        MissingDataError: it is stored nowhere and the text encoder cannot be had, or transformers is not installed.
        BadInputError: a stored file holds something else, or the folder's text encoder cannot be used.
    """
    beside = source.folder / FILE
    if beside.is_file():
        return read(beside)
    key = source.text_key or folder_key(source.folder)
    kept = fetch.cache_folder() / "empty_prompts" / f"{key}.safetensors"
    for path in (shipped_folder() / kept.name, kept):
        if path.is_file():
            return read(path)
    _text_classes()  # without them nothing is fetched
    embedding = compute(source.text_encoder())
    with suppress(OSError, OutputError):  # it is computed anew next time
        write(kept, embedding, key)
    return embedding


def at_hand(name: str) -> bool:
    """Whether a backbone and its prompt can be used on this machine as it is, without a network."""
    return whereabouts(name) == HERE


def whereabouts(name: str) -> str:
    """:data:`HERE`, "not on this machine", or what of the backbone or its prompt is damaged."""
    try:
        load(sources.find(name, may_fetch=False))
    except MissingDataError:
        return "not on this machine"
    except BadInputError as error:
        return f"damaged: {' '.join(str(error).split())}"
    return HERE


def shipped_folder() -> Path:
    """Where the package keeps embeddings it ships, named like those in the cache."""
    return Path(str(resources.files("diffusion_codec"))) / "weights" / "empty_prompts"


def read(path: Path) -> Tensor:
    """A stored embedding; BadInputError where the file is damaged or holds something else."""
    try:
        with safe_open(path, "pt") as file:
            recorded = (file.metadata() or {}).get("sha256")
            embedding: Tensor = file.get_tensor("embedding")
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path} holds no embedding of the empty prompt: {error}") from error
    if embedding.ndim != 3 or (recorded is not None and recorded != _sha256(embedding)):
        raise BadInputError(f"{path} is damaged: remove it, and the embedding is computed again")
    return embedding


def write(path: Path, embedding: Tensor, key: str, force: bool = True) -> None:
    """Keep an embedding with its own hash and that of the text encoder it came from. Errors: OutputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"sha256": _sha256(embedding), "text_encoder": key}
    write_atomically(path, save({"embedding": embedding.contiguous()}, about), force)


def folder_key(folder: Path) -> str:
    """Hash over the names and contents of ``text_encoder/`` and ``tokenizer/``.

    Raises:
        MissingDataError: the folder has neither them nor an embedding.
    """
    if not (folder / "text_encoder").is_dir() or not (folder / "tokenizer").is_dir():
        raise MissingDataError(
            f"{folder} holds neither {FILE} nor text_encoder/ and tokenizer/ to compute it from: copy those two of the "
            "same model there, once"
        )
    weights, _ = weights_file(folder / "text_encoder", TEXT_WEIGHTS)
    names = [weights, folder / "text_encoder" / "config.json", *sorted((folder / "tokenizer").iterdir())]
    hashes = {p.relative_to(folder).as_posix(): fetch.sha256_of(p) for p in names if p.is_file()}
    return fetch.listing_sha256(hashes)


def compute(folder: Path, text: str = "") -> Tensor:
    """Run the text encoder on the empty prompt, or another, padded as Stable Diffusion's own pipeline pads it.

    Args:
        folder: holds ``text_encoder/`` (CLIPTextModel) and ``tokenizer/``.

    Raises:
        MissingDataError: the package transformers is not installed.
        BadInputError: the two folders do not hold what they should.
    """
    encoder_class, tokenizer_class = _text_classes()
    _, variant = weights_file(folder / "text_encoder", TEXT_WEIGHTS)
    try:
        tokenizer = tokenizer_class.from_pretrained(folder / "tokenizer", local_files_only=True)
        with _READING:
            encoder = encoder_class.from_pretrained(
                folder / "text_encoder",
                local_files_only=True,
                use_safetensors=True,
                variant=variant or None,
                dtype=torch.float32,
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise BadInputError(f"{folder} holds no CLIP text encoder with its tokenizer: {error}") from error
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        embedding: Tensor = encoder(tokens.input_ids)[0]
    return embedding.float().clone()


def _text_classes() -> tuple[Any, Any]:
    """Classes of the text encoder and its tokenizer; MissingDataError without the package that has them."""
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise MissingDataError(
            f"the empty prompt's embedding is computed once, by the text encoder, which needs transformers: "
            f"{how_to_install('stable-diffusion')}"
        ) from error
    return CLIPTextModel, CLIPTokenizer


def _sha256(embedding: Tensor) -> str:
    about = json.dumps([str(embedding.dtype), list(embedding.shape)]).encode()
    return hashlib.sha256(about + embedding.contiguous().numpy().tobytes()).hexdigest()
