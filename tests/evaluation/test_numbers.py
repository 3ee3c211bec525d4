"""The README's table is what the records say."""

import pytest
from typer.testing import CliRunner

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import numbers, seal

README = fetch.repository_root() / "README.md"


def test_the_readme_is_in_step_with_the_records():
    text = README.read_text(encoding="utf-8")
    assert numbers.renewed(text, seal.results_folder()) == text, "run `make numbers`"
    assert CliRunner().invoke(numbers.app, ["--check"]).exit_code == 0


def test_only_the_table_changes():
    text = f"before\n{numbers.BEGIN}\nold\n{numbers.END}\nafter\n"
    new = numbers.renewed(text, seal.results_folder())
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old" not in new
    assert "with denoising / without" in new
    with pytest.raises(BadInputError, match="numbers: begin"):
        numbers.renewed("no marks", seal.results_folder())
