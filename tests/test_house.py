"""The house itself: one source of truth for versions, tidy files, a Makefile that explains itself."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Folders of one particular machine; `/path/to/...` and the like are fine.
FOREIGN_PATH = re.compile(r"(?<![\w./-])/(?:home|root|work|Users|opt)/\w")
NOT_SET_UP = ("audit", "cluster")
UNFINISHED = re.compile(
    r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|lorem ip" + r"sum)\b|^<{7} |^>{7} ", re.MULTILINE
)


def tracked_texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = {}
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        content = path.read_bytes()
        if b"\0" not in content and not name.startswith("tests/attacks/kept/") and path.suffix != ".dfc":
            texts[name] = content.decode("utf-8")
    return texts


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in pins]
    assert all(found), [line for line, match in zip(pins, found, strict=True) if not match]
    return {canonicalize_name(match[1]): Version(match[2]) for match in found if match}


def requirements() -> list[Requirement]:
    extras = PYPROJECT["optional-dependencies"].values()
    lines = [*PYPROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [Requirement(line) for line in lines if not line.startswith(PYPROJECT["name"])]


def test_every_requirement_has_a_tested_version_in_its_range() -> None:
    pins = constraints()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name}: run `make setup lock` and commit constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes the tested {pins[name]}"
    assert "torchvision" not in pins


def test_the_conda_environment_mirrors_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, installed = environment["dependencies"]
    assert python == f"python{PYPROJECT['requires-python']}"
    assert pip == "pip"
    assert environment["name"] == PYPROJECT["name"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    editable = re.search(r"-e '(\.\[book,[^]]+\])'", makefile)
    assert editable
    assert installed["pip"] == ["-c constraints.txt", f"-e {editable[1]}"]
    extras = set(editable[1][2:-1].split(","))
    reached = {r.name for r in requirements()} - reachable({*extras, *NOT_SET_UP})
    assert reached == set(), f"make setup does not install {reached}"


def reachable(extras: set[str]) -> set[str]:
    names = {Requirement(line).name for line in PYPROJECT["dependencies"]}
    for extra in extras:
        for requirement in map(Requirement, PYPROJECT["optional-dependencies"][extra]):
            is_self = requirement.name == PYPROJECT["name"]
            names |= reachable(requirement.extras) if is_self else {requirement.name}
    return names


def test_no_path_of_one_machine_and_nothing_unfinished() -> None:
    texts = tracked_texts()
    assert "Makefile" in texts
    found = [
        f"{name}: {match[0]!r}"
        for name, text in texts.items()
        for pattern in (FOREIGN_PATH, UNFINISHED)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_the_version_is_said_once() -> None:
    import diffusion_codec

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PYPROJECT["version"] == diffusion_codec.__version__ == citation["version"]
    assert citation["license"] == PYPROJECT["license"] == "Apache-2.0"
    assert "Lossy Image Compression" in citation["references"][0]["title"]


def test_make_help_explains_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    explained = re.findall(r"^  ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    assert sorted(explained) == sorted(phony[1].split())


def test_continuous_integration_runs_both_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"make test.*make book SMOKE=1", script.read_text(encoding="utf-8"), re.DOTALL)
