"""From a backbone's name to a checked folder on this disk.

A name is an embedded backbone (``mini``, ``small``), one of the manifest (``stable-diffusion-v1-5``), a folder, or
``owner/name`` of the hub, looked for in this order: a folder that is called like a backbone is named with a separator,
``./mini``. What the manifest pins (revision, bytes, SHA-256) is checked before use. Where nobody could pin it yet, the
hub's current revision and hashes are recorded at the first download, and hold from then on.
"""

import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffusion_codec import fetch
from diffusion_codec._download import TIMEOUT_S, DownloadError, download, offline, writing
from diffusion_codec.backbone import layout
from diffusion_codec.backbone.layout import VARIANTS, WEIGHTS
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.fetch import Entry, FileEntry, Store, listing_sha256, sha256_of
from diffusion_codec.files import write_atomically

EMBEDDED = ("mini", "small")
HUB = "https://huggingface.co"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
MODEL_FILES = ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json")
TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
TEXT_FILES = ("text_encoder/config.json", *(f"tokenizer/{name}" for name in TOKENIZER))


@dataclass(frozen=True)
class Source:
    """Where a backbone lies.

    Attributes:
        name: what it is called in results; None where the folder says so itself.
        text_key: hash over the files of text encoder and tokenizer, where it is known without them.
        text_encoder: gives a folder with ``text_encoder/`` and ``tokenizer/``, fetching them if need be.
    """

    name: str | None
    folder: Path
    text_key: str | None
    text_encoder: Callable[[], Path]


def embedded_folder(name: str) -> Path:
    """The folder of a backbone that ships with the package.

    Raises:
        MissingDataError: no such backbone; the message lists those there are.
    """
    folder = Path(str(resources.files("diffusion_codec"))) / "weights" / name
    if name not in EMBEDDED or not folder.is_dir():
        others = ", ".join(known())
        raise MissingDataError(
            f"no embedded backbone {name!r}; embedded: {', '.join(EMBEDDED)}; to be fetched: {others}; or name a "
            "folder, or owner/name of the hub"
        )
    return folder


def known() -> dict[str, Entry]:
    """Backbones of the manifest by name."""
    return {name: entry for name, entry in fetch.manifest().entries.items() if entry.kind == "backbone"}


def find(
    name_or_folder: str | Path, say: Callable[[str], None] | None = None, *, may_fetch: bool = True
) -> Source:
    """The backbone's folder, complete and checked; fetched where it is not on this machine.

    Args:
        say: gets the line that is written before a download; standard error by default.
        may_fetch: without, what is not on this machine is missing.

    Raises:
        MissingDataError: no such name, or it cannot be fetched: offline, no source answers, no space on the disk.
        BadInputError: what the hub offers are pickled weights.
    """
    if is_folder(name_or_folder):
        folder = Path(name_or_folder)
        return Source(None, folder, None, lambda: folder)
    name, entries = str(name_or_folder), known()
    if name in entries:
        return _fetched(name, entries[name], say or _to_stderr, may_fetch)
    if name not in EMBEDDED and HUB_ID.match(name):
        return _fetched(name, _entry_of_hub(name), say or _to_stderr, may_fetch)
    folder = embedded_folder(name)
    return Source(None, folder, None, lambda: folder)


def is_folder(name_or_folder: str | Path) -> bool:
    """Whether this is a folder on this disk, and not the name of a backbone."""
    is_name = isinstance(name_or_folder, str) and name_or_folder in (*EMBEDDED, *known())
    return not is_name and Path(name_or_folder).is_dir()


def _fetched(name: str, entry: Entry, say: Callable[[str], None], may_fetch: bool) -> Source:
    key = name.replace("/", "--")
    if entry.first_use:
        entry = _pinned(key, entry, say, may_fetch)
    entry = entry.model_copy(update={"sources": tuple(_address(source) for source in entry.sources)})
    text = entry.model_copy(update={"files": entry.text_encoder})
    folder = _files(key, entry, say, may_fetch)
    hashes = {file.name: file.sha256 for file in entry.text_encoder}
    text_key = listing_sha256(hashes) if hashes else None
    return Source(name, folder, text_key, lambda: _files(key, text, say, may_fetch))


def _files(key: str, entry: Entry, say: Callable[[str], None], may_fetch: bool) -> Path:
    """A folder that holds the entry's files, each checked."""
    store = Store(fetch.Manifest(schema=1, entries={key: entry}), fetch.mirror_folder(), fetch.cache_folder())
    located = store.find(key)
    if located is None and not may_fetch:
        raise MissingDataError(f"{key} is not on this machine")
    if located is None:
        announce(key, entry, store.cache_folder(key), say)
        located = store.locate(key)
    return located.path


def announce(key: str, entry: Entry, folder: Path, say: Callable[[str], None]) -> None:
    """Say what will be fetched, how large it is, its licence and where it goes; check that it fits.

    Raises:
        MissingDataError: offline, or the disk has not that much space.
    """
    missing = sum(file.bytes - _here(folder, file) for file in entry.files)
    if offline():
        raise MissingDataError(
            f"{key} is not on this machine, and the network is switched off (HF_HUB_OFFLINE or DIFFUSION_CODEC_OFFLINE "
            f"is set); {missing / 1e9:.2f} GB belong into {folder}"
        )
    say(
        f"{entry.title}: fetching {missing / 1e9:.2f} GB to {folder}. Licence: {entry.licence}. Page: {entry.homepage}"
    )
    free = shutil.disk_usage(_existing(folder)).free
    if missing > free:
        raise MissingDataError(
            f"{key} needs {missing / 1e9:.2f} GB more in {folder}, and the disk has {free / 1e9:.2f} GB free: make "
            "room, or set DIFFUSION_CODEC_CACHE to a folder on a larger disk"
        )


def _here(folder: Path, file: FileEntry) -> int:
    """Bytes of a file that are here already, whole or in part."""
    sizes = [p.stat().st_size for p in (folder / file.name, folder / f"{file.name}.part") if p.is_file()]
    return min(max(sizes, default=0), file.bytes)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def hub() -> str:
    """The hub's address: HF_ENDPOINT where it is set, as in the hub's own tools."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _address(source: str) -> str:
    return hub() + source.removeprefix(HUB) if source.startswith(f"{HUB}/") else source


def _entry_of_hub(repository: str) -> Entry:
    return Entry(
        kind="backbone",
        title=repository,
        licence="the one on its page",
        homepage=f"{HUB}/{repository}",
        use="a backbone the user chose",
        first_use=(repository,),
    )


def _pinned(key: str, entry: Entry, say: Callable[[str], None], may_fetch: bool) -> Entry:
    """The entry with the files its first download recorded; recorded now if this is the first."""
    path = fetch.cache_folder() / key / "pins.json"
    if not path.is_file() and not may_fetch:
        raise MissingDataError(f"{key} is not on this machine")
    if not path.is_file():
        _record(key, entry, path, say)
    try:
        return entry.model_copy(update=_pins(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is damaged: {error}; remove it, and the hub is asked again") from error


def _pins(stored: dict[str, Any]) -> dict[str, Any]:
    groups = {
        group: tuple(FileEntry.model_validate(file) for file in stored[group])
        for group in ("files", "text_encoder")
    }
    address = f"{HUB}/{stored['repository']}/resolve/{stored['revision']}/{{name}}"
    return {**groups, "sources": (address,)}


def _record(key: str, entry: Entry, path: Path, say: Callable[[str], None]) -> None:
    """Ask the hub which revision is current and what its files hash to; the first repository that answers counts."""
    if offline():
        raise MissingDataError(
            f"{key} is not on this machine, and the network is switched off (HF_HUB_OFFLINE or DIFFUSION_CODEC_OFFLINE)"
        )
    problems = []
    with writing(path), FileLock(f"{path}.lock"):
        if path.is_file():  # another process was faster
            return
        for repository in entry.first_use:
            try:
                pins = _ask_for_pins(repository, entry, path.parent, say)
            except (DownloadError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, BadInputError):
                    raise
                problems.append(f"{repository}: {error}")
                continue
            write_atomically(path, (json.dumps(pins, indent=1) + "\n").encode())
            return
    raise MissingDataError(
        f"{key} is not on this machine and no source has it: {'; '.join(problems)}. Put a copy of its folder on "
        "this disk and name that folder instead"
    )


def _ask_for_pins(repository: str, entry: Entry, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Revision, bytes and SHA-256 of a repository's files; what the hub has no SHA-256 of is fetched for it.

    Raises:
        DownloadError: the repository does not answer.
        BadInputError: it is no model the codec can use, which its configurations say before its weights are fetched.
    """
    revision = str(_ask(f"models/{repository}")["sha"])
    chosen = _choose(repository, _ask(f"models/{repository}/tree/{revision}?recursive=true"))
    small = sum(item["size"] for items in chosen.values() for item in items if _is_small(item))
    say(
        f"{entry.title}: recording the hashes of {repository}, and fetching its configuration and tokenizer, "
        f"{small / 1e6:.1f} MB, to {folder}. Licence: {entry.licence}. Page: {entry.homepage}"
    )
    address = f"{hub()}/{repository}/resolve/{revision}"
    groups = {group: [_described(address, item, folder) for item in items] for group, items in chosen.items()}
    layout.described(folder)
    return {"repository": repository, "revision": revision, **groups}


def _ask(path: str) -> Any:
    address = f"{hub()}/api/{path}"
    request = urllib.request.Request(address, headers={"User-Agent": "diffusion-codec"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        gone = "; it is gone, renamed or behind a login" if error.code in (401, 403, 404) else ""
        raise DownloadError(f"{address} answers HTTP {error.code}{gone}") from error
    except (OSError, ValueError) as error:
        raise DownloadError(f"{address}: {error}") from error


def _choose(repository: str, tree: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The files a backbone needs of a repository's tree, half precision before full."""
    by_name = {str(item["path"]): item for item in tree if item.get("type") == "file"}
    model = [*MODEL_FILES, *(_weights(repository, by_name, part, WEIGHTS) for part in ("unet", "vae"))]
    text = [*TEXT_FILES, _weights(repository, by_name, "text_encoder", "model")]
    absent = [name for name in (*model, *text) if name not in by_name]
    if absent:
        raise BadInputError(
            f"{repository} is no Stable Diffusion in the layout of diffusers: no {', '.join(absent)}"
        )
    return {"files": [by_name[n] for n in model], "text_encoder": [by_name[n] for n in text]}


def _is_small(item: dict[str, Any]) -> bool:
    return "lfs" not in item or item["path"] in MODEL_FILES


def _described(address: str, item: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file of the tree."""
    name, stored = str(item["path"]), item.get("lfs", {})
    if not _is_small(item):
        return {"name": name, "bytes": stored["size"], "sha256": stored["oid"]}
    # the hub hashes small files its own way: take them now, record what came
    target = folder / name
    for left in (target, target.with_name(f"{target.name}.part")):
        left.unlink(missing_ok=True)  # by another repository that broke off, maybe
    download([f"{address}/{name}"], target, stored.get("oid", ""), item["size"])
    return {"name": name, "bytes": target.stat().st_size, "sha256": sha256_of(target)}


def _weights(repository: str, by_name: dict[str, Any], part: str, stem: str) -> str:
    for variant in reversed(VARIANTS):
        name = f"{part}/{stem}{variant}.safetensors"
        if name in by_name:
            return name
    if any(name.startswith(f"{part}/") and name.endswith(".bin") for name in by_name):
        raise BadInputError(
            f"{repository} offers {part}/ as pickled weights only, which can run any program when they are read: they "
            "are refused. Download the repository yourself and run diffusion-codec backbone convert FOLDER"
        )
    return f"{part}/{stem}.safetensors"
