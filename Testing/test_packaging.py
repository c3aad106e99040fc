"""What CMake installs is what git tracks: a file forgotten in a list would be missing from every user's Slicer."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from MRSuperResLib.models import list_models


def tracked(repository: Path, *folders: str) -> set[str]:
    """Files of the source tree: what git tracks, and what it would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return {
        line for line in done.stdout.splitlines() if (repository / line).is_file() and Path(line).name != ".gitignore"
    }


def listed(repository: Path, variable: str) -> set[str]:
    """Files a `set(VARIABLE ...)` in the module's CMakeLists.txt names, relative to the top."""
    text = (repository / "MRSuperRes" / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf"set\({variable}\s+([^)]*)\)", text)
    assert found, f"{variable} is not set"
    return {f"MRSuperRes/{name.replace('${MODULE_NAME}', 'MRSuperRes')}" for name in found.group(1).split()}


def test_every_file_of_the_module_is_installed(repository: Path) -> None:
    files = tracked(repository, "MRSuperRes") - {"MRSuperRes/CMakeLists.txt"}
    scripts, resources = listed(repository, "MODULE_PYTHON_SCRIPTS"), listed(repository, "MODULE_PYTHON_RESOURCES")
    assert scripts | resources == files
    assert all(name.endswith(".py") for name in scripts) and not any(name.endswith(".py") for name in resources)


def test_every_file_of_the_library_is_installed(repository: Path) -> None:
    """The library's lists are globs: they must match what git has, no more and no less."""
    text = (repository / "MRSuperResLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    patterns = re.findall(r"CONFIGURE_DEPENDS\s+([^)]*)\)", text)
    names = {name for block in patterns[:2] for name in block.split()}
    library = repository / "MRSuperResLib"
    globbed = {
        path.relative_to(repository).as_posix()
        for name in names
        for path in library.rglob(name)
        if "__pycache__" not in path.parts
    }
    assert globbed == tracked(repository, "MRSuperResLib") - {"MRSuperResLib/CMakeLists.txt"}


def test_every_model_is_installed_and_sound(repository: Path) -> None:
    files = {Path(name).name for name in tracked(repository, "Resources/Models") if name.endswith(".safetensors")}
    found = {
        entry.path.name
        for entry in list_models()
        if entry.path and entry.path.parent == repository / "Resources" / "Models"
    }
    assert found == files
    for name in files:
        assert (repository / "Resources" / "Models" / name).stat().st_size <= 16 * 2**20
    text = (repository / "MRSuperResLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "../Resources/Models/*.safetensors" in text and "MRSuperResLib/Resources/Models" in text


def test_the_top_list_adds_module_and_library_and_asks_for_pytorch(repository: Path) -> None:
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    for needed in (
        "project(MRSuperRes", "add_subdirectory(MRSuperRes)", "add_subdirectory(MRSuperResLib)", 'EXTENSION_DEPENDS "PyTorch"',
        "Slicer_USE_FILE", "Slicer_EXTENSION_GENERATE_CONFIG", "Slicer_EXTENSION_CPACK", "EXTENSION_ICONURL", "EXTENSION_CATEGORY",
    ):  # fmt: skip
        assert needed in text
    for url in re.findall(r"raw\.githubusercontent\.com/[^/]+/[^/]+/main/([^\"\s]+)", text):
        assert (repository / url).is_file(), url


def test_the_project_has_languages(repository: Path) -> None:
    """With `LANGUAGES NONE`, Slicer's configuration fails at its bitness check (no CMAKE_SIZEOF_VOID_P) and in FindThreads."""
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    (arguments,) = re.findall(r"^project\(([^)]*)\)", text, re.MULTILINE)
    assert arguments.split() == ["MRSuperRes"], "without LANGUAGES, CMake enables C and C++"
    assert text.index("project(") < text.index("find_package(Slicer")


def test_every_test_for_a_real_slicer_is_registered(repository: Path) -> None:
    """What ctest runs in a build of the extension: the module's self-test, and each file of Testing/Slicer."""
    folder = repository / "Testing" / "Slicer"
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    registered = re.findall(r"^slicer_add_python_(?:unit)?test\(SCRIPT (\S+\.py)", text, re.MULTILINE)
    assert sorted(registered) == sorted(path.name for path in folder.glob("*.py"))
    assert "add_subdirectory(Testing/Slicer)" in (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    own = (repository / "MRSuperRes" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in own and "WITH_GENERIC_TESTS" in own


FAKE_SLICER = """
# As SlicerConfig.cmake: the extension's bitness is compared with the application's, and threads are looked for.
if(NOT CMAKE_SIZEOF_VOID_P)
  message(FATAL_ERROR "bitness unknown: no language is enabled")
endif()
find_package(Threads REQUIRED)
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Check.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Empty.cmake")
"""
USE_SLICER = """
include(CMakeParseArguments)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "${file} does not exist")
    endif()
  endforeach()
  list(LENGTH MODULE_SCRIPTS count)
  message(STATUS "scripted module ${MODULE_NAME} with ${count} scripts")
endmacro()
macro(ctkMacroCompilePythonScript)
endmacro()
macro(slicer_add_python_unittest)
endmacro()
macro(slicer_add_python_test)
endmacro()
"""
CHECK = """
foreach(name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${name})
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
endforeach()
message(STATUS "extension described")
"""


def test_the_extension_configures(repository: Path, tmp_path: Path) -> None:
    """The real CMake, with what Slicer's configuration does before and the macros it defines."""
    compiler = next((name for name in ("c++", "g++", "clang++", "cl") if shutil.which(name)), None)
    if shutil.which("cmake") is None or compiler is None:
        pytest.skip("needs cmake and a compiler")
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    for name, text in (("SlicerConfig", FAKE_SLICER), ("UseSlicer", USE_SLICER), ("Check", CHECK), ("Empty", "")):
        (slicer / f"{name}.cmake").write_text(text)
    command = [
        "cmake",
        "-S",
        str(repository),
        "-B",
        str(tmp_path / "build"),
        f"-DSlicer_DIR={slicer}",
        "-DBUILD_TESTING=ON",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "scripted module MRSuperRes with" in done.stdout and "extension described" in done.stdout


def test_the_extensions_index_entry_follows_its_schema(repository: Path) -> None:
    """slicer-extension-catalog-entry-schema-v1.0.1: these fields, and no others."""
    entry = json.loads((repository / "Resources" / "ExtensionsIndex" / "MRSuperRes.json").read_text(encoding="utf-8"))
    assert entry["$schema"].endswith("/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    kinds = {
        "$schema": str, "build_dependencies": list, "build_subdirectory": str, "category": str, "enabled": bool,
        "scm_revision": str, "scm_type": str, "scm_url": str, "tier": int,
    }  # fmt: skip
    assert set(entry) <= set(kinds) and {"$schema", "category", "scm_url"} <= set(entry)
    assert all(isinstance(value, kinds[name]) for name, value in entry.items())
    assert entry["tier"] in (1, 3, 5) and entry["scm_type"] in ("git", "local")
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in text
    (depends,) = re.findall(r'set\(EXTENSION_DEPENDS "([^"]*)"\)', text)
    assert entry["build_dependencies"] == depends.split()


def test_what_the_extensions_index_asks_for_is_there(repository: Path) -> None:
    """Its checklist: a repository called Slicer..., README, tutorial, citation, licence, screenshots, an icon of 128 pixels."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    entry = json.loads((repository / "Resources" / "ExtensionsIndex" / "MRSuperRes.json").read_text(encoding="utf-8"))
    name = entry["scm_url"].rsplit("/", 1)[-1].removesuffix(".git")
    assert name == "SlicerMRSuperRes" and name in readme and f"/{name}" in text
    for heading in ("## In 3D Slicer", "### Tutorial", "### Modules", "### How to cite"):
        assert heading in readme, heading
    assert re.search(r"^- \*\*MRSuperRes\*\*: \S.*\.$", readme, re.MULTILINE), "one sentence per module"
    assert "Apache License" in (repository / "LICENSE.txt").read_text(encoding="utf-8")
    header = (repository / "Resources" / "MRSuperRes.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:24]) == (128, 128)
    pictures = re.findall(r"!\[[^\]]+\]\((Resources/Screenshots/[^)]+)\)", readme)
    assert len(pictures) >= 2 and all((repository / picture).is_file() for picture in pictures)
    for field in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "LICENSE_FILE"):
        assert re.search(rf"set\(EXTENSION_{field} \"[^\"]+\"\)", text), field


def test_module_and_extension_have_one_icon(repository: Path) -> None:
    for suffix in (".svg", ".png"):
        module = repository / "MRSuperRes" / "Resources" / "Icons" / f"MRSuperRes{suffix}"
        assert (repository / "Resources" / f"MRSuperRes{suffix}").read_bytes() == module.read_bytes()


def test_nothing_third_party_is_imported_when_slicer_loads_the_module(repository: Path) -> None:
    """Slicer's process must never import torch, nor what only the worker needs."""
    for path in (repository / "MRSuperRes").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"\s*(import|from)\s+(torch|monai|safetensors|einops|lightning_fabric)\b", line), (
                f"{path}: {line}"
            )


def test_tests_that_need_a_missing_library_of_the_system_are_skipped_with_its_package(tmp_path: Path) -> None:
    """A minimal Debian has no libGL, and `make test` must not fail there; another import error still fails."""
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    lines = {
        "gl": "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
        "glib": "raise ImportError('libglib-2.0.so.0: cannot open shared object file: No such file or directory')",
        "bug": "raise ImportError('cannot import name x')",
    }
    for name, line in lines.items():
        (tmp_path / f"test_{name}.py").write_text(line + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--continue-on-collection-errors", "."],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "2 skipped, 1 error" in done.stdout, done.stdout
    assert (
        "libGL.so is missing: apt install" in done.stdout and "libgl1" in done.stdout and "test_bug.py" in done.stdout
    )
