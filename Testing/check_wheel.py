"""Check a built wheel: it holds what it must, and the library imports from it in an empty environment.

    python Testing/check_wheel.py dist

Used by `make wheel`. Exits with a line that says what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# Runs inside the empty environment: no numpy, no torch, only the wheel.
IMPORT = """
import importlib.metadata, pathlib, sys
import MRSuperResLib
home = pathlib.Path(MRSuperResLib.__file__).parent
assert pathlib.Path(sys.prefix).resolve() in home.resolve().parents, f"imported from {home}, not from the wheel"
assert importlib.metadata.version("mrsuperres") == MRSuperResLib.__version__
[script] = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "mrsuperres"]
assert script.value == "MRSuperResLib.__main__:main", script.value
"""

# Runs with the requirements there, but the wheel's copy of the library.
LIST = """
import pathlib, sys
import MRSuperResLib
from MRSuperResLib import models
assert str(pathlib.Path(MRSuperResLib.__file__).resolve()).startswith(sys.argv[1]), MRSuperResLib.__file__
for entry in models.list_models():
    if entry.path is not None and str(pathlib.Path(entry.path).resolve()).startswith(sys.argv[1]):
        print(pathlib.Path(entry.path).name)
"""


def expected_files() -> set[str]:
    """Every file of the library and every shipped model, by its name inside the wheel."""
    library = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "MRSuperResLib").rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml", ".typed", ".json", ".safetensors")
    }
    models = {
        f"MRSuperResLib/Resources/Models/{path.name}"
        for path in (REPOSITORY / "Resources" / "Models").glob("*.safetensors")
    }
    return library | models


def check(wheel: Path) -> str:
    """A line saying what the wheel holds. Raises `SystemExit` with what is wrong."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = sorted(expected_files() - names)
    if missing:
        raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
    models = sorted(Path(name).name for name in names if Path(name).match("Resources/Models/*.safetensors"))
    recipes = [name for name in names if "/training/recipes/" in name and name.endswith(".toml")]
    for what, found in (("a model", models), ("a training recipe", recipes)):
        if not found:
            raise SystemExit(f"{wheel.name} holds not even {what}")
    if not any(name.endswith("licenses/LICENSE.txt") for name in names):
        raise SystemExit(f"{wheel.name} lacks its licence")
    strangers = sorted(name for name in names if not name.startswith(("MRSuperResLib/", "mrsuperres-")))
    if strangers:
        raise SystemExit(f"{wheel.name} would install {', '.join(strangers[:5])} beside the library")

    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty"
        venv.create(empty, with_pip=True)
        python = empty / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, str(wheel)], check=True)
        subprocess.run([str(python), "-c", IMPORT], check=True, cwd=folder)

        site = Path(folder).resolve() / "site"
        subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
        listed = subprocess.run(
            [sys.executable, "-c", LIST, str(site)],
            env={**os.environ, "PYTHONPATH": str(site)}, cwd=folder, check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        if sorted(listed) != models:
            raise SystemExit(
                f"{wheel.name} holds {', '.join(models)}, but `mrsuperres models` lists {', '.join(listed)}"
            )
    megabytes = wheel.stat().st_size / 1e6
    return (
        f"{wheel.name}: {megabytes:.1f} MB, {len(models)} models, {len(recipes)} recipes, imports without requirements"
    )


def main() -> None:
    folder = Path(sys.argv[1])
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SystemExit(f"{folder} holds {len(wheels)} wheels, expected one")
    print(check(wheels[0]))


if __name__ == "__main__":
    main()
