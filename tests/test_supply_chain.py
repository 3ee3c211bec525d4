"""What the project stands on: each dependency has its reason in the book, and nothing loads code from data."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diffusion_codec.bitstream import DEFAULT_LIMITS

ROOT = Path(__file__).parents[1]
# Arrays only, of files whose SHA-256 was checked (and the tests that give that reader bad ones); the name of an error;
# TorchScript, which runs no Python, of a file whose SHA-256 was checked.
ALLOWED = {
    "src/diffusion_codec/metrics/trunks.py": {"pickle"},
    "tests/metrics/test_trunks.py": {"pickle"},
    "tests/attacks/make.py": {"pickle"},
    "src/diffusion_codec/backbone/convert.py": {"pickle"},
    "src/diffusion_codec/metrics/inception.py": {"torch.jit.load"},
}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
}


def sources() -> Iterator[tuple[str, str]]:
    """Python of the project: modules and the code cells of notebooks."""
    for folder in ("src", "tests", "book"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path.relative_to(ROOT).as_posix(), "\n".join(code)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(code: str) -> list[str]:
    """What in the code could run data: names of banned modules, calls and arguments."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in BANNED_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in BANNED_MODULES:
            found.append(str(node.module))
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {k.arg: k.value for k in node.keywords}
        safe = given.get("weights_only")
        if name == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
            found.append("torch.load without weights_only=True")
        if name in BANNED_CALLS or "allow_pickle" in given or name.endswith("torch.jit.load"):
            found.append(name)
    return found


def test_nothing_loads_code_from_data() -> None:
    found = {name: dangers(code) for name, code in sources()}
    assert len(found) > 100
    assert {name: set(what) for name, what in found.items() if what} == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.parallel",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "x = [eval(text)]",
        "exec(code)",
    ],
)
def test_the_lint_finds(code: str) -> None:
    assert dangers(code)


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "torch.load(p, weights_only=True)", "yaml.safe_load(t)", "np.load(p)", "coder.exec_()"],
)
def test_the_lint_lets_pass(code: str) -> None:
    assert dangers(code) == []


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    return names - {project["name"]}


def test_each_dependency_has_its_reason_in_the_book() -> None:
    page = (ROOT / "book" / "robustness.md").read_text(encoding="utf-8")
    reasons = dict(re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \| ([^|]{15,}) \|$", page, re.MULTILINE))
    assert sorted(dependencies() - reasons.keys()) == []


def test_the_limits_of_the_security_page_are_the_defaults() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(max_[a-z_]+)` \| ([^|]+) \|", page, re.MULTILINE))
    assert rows.keys() == vars(DEFAULT_LIMITS).keys()
    said = {
        "max_side": 16384,
        "max_pixels": 2**27,
        "max_symbols": 2**24,
        "max_memory_bytes": 4 * 2**30,
        "max_steps": 1000,
        "max_file_bytes": 256 * 2**20,
        "max_picture_bytes": 2**30,
    }
    assert said == vars(DEFAULT_LIMITS)
