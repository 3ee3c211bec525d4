"""A wheel carries the data manifest, so that models and data sets have their names outside a clone, too."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithManifest(build_py):
    """Copies data/manifest.toml into the package that is built; an editable install reads it where it lies."""

    def run(self) -> None:
        """As the ordinary command, and one file more."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "diffusion_codec"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(__file__).parent / "data" / "manifest.toml", folder / "manifest.toml")


setup(cmdclass={"build_py": WithManifest})
