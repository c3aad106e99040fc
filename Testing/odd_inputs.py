"""Run odd inputs from a seed and judge every answer: `python Testing/odd_inputs.py SEED COUNT [FIRST]`.

Each input is made from (SEED, number) alone, so that one that failed can be run again by itself. Volumes are read, and some run;
jobs, models and command lines are run. One JSON line each goes to standard output. An input is answered well if it ends within a
minute, without a traceback, abort or leftover, in one line that says what is wrong, or with what an independent reader finds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # also where the package is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import odd_dicom
import odd_volumes
from made_files import image_file, noise

from MRSuperResLib.cli.main import main
from MRSuperResLib.errors import MRSuperResError
from MRSuperResLib.io.read import read_volume

LIMIT = 60  # seconds for one input
CODES = (0, 2, 3, 4, 5, 6, 7, 130)  # documented ends; 1 is a bug
LONGEST = 700  # characters of a message
RUN = 0.2  # share of the volumes that are also run, from the shell's door
MAKERS = (*odd_volumes.MAKERS, odd_dicom.dicom, odd_dicom.dicom, odd_dicom.dicom)
JUNK = (
    "",
    "-1",
    "nan",
    "1e400",
    "~",
    "\x00",
    "\udcfc",
    "x" * 300,
    "é",
    "--",
    "/dev/null",
    "0",
    "T1w",
    "\n",
    "[]",
)


def answer(seed: int, number: int) -> dict[str, Any]:
    """Make one input and judge what becomes of it: {number, words, outcome, wrong}; wrong: None, or what must not be."""
    rng = np.random.default_rng((seed, number))
    kinds: list[Callable[[np.random.Generator, Path], dict[str, Any]]] = [_volume] * 8 + [
        _job,
        _model,
        _command,
        _command,
    ]
    with tempfile.TemporaryDirectory() as name:
        found = kinds[int(rng.integers(len(kinds)))](rng, Path(name))
    return {"number": number, **found}


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _volume(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    (folder / "in").mkdir()
    made = MAKERS[int(rng.integers(len(MAKERS)))](rng, folder / "in")
    before, told = _listing(folder), []
    outcome, wrong = "read", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of numpy: a sum that overflows is told by us or by nobody
            volume = read_volume(made.path, warn=lambda code, message: told.append(code))
        outcome = "told" if told else "read"
        wrong = made.difference(volume, told) if made.difference else None
    except MRSuperResError as error:
        outcome = "refused" if made.difference is None else "refused, though another reader takes it"
        if made.sound:
            wrong = f"refused: {error.message}"
        elif "\n" in error.message or len(error.message) > LONGEST:
            wrong = f"no clear line: {error.message!r}"
    if wrong is None and _listing(folder) != before:
        wrong = f"leftover: {_listing(folder) - before}"
    if wrong is None and rng.random() < RUN:
        arguments = ["run", str(made.path), "-m", "linear", "--factor", "2", "-o", str(folder / "out.nii.gz")]
        code, text = _shell(arguments)
        wrong = _judged(code, text, folder, before, {"out.nii.gz", "out.json"})
        if wrong is None and outcome.startswith("refused") and code == 0:
            wrong = "run, though it cannot be read"
    return {"words": ["volume", *made.words], "outcome": outcome, "wrong": wrong}


def _shell(arguments: list[str]) -> tuple[int, str]:
    """(exit code, what was printed) of a command in this process."""
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return code, errors.getvalue() + output.getvalue()


def _judged(code: int, text: str, folder: Path, before: set[str], results: set[str]) -> str | None:
    if code not in CODES:
        return f"ended with {code}: {text[-300:]}"
    if "Traceback" in text:
        return f"a traceback: {text[-300:]}"
    left = _listing(folder) - before - (results if code == 0 else set())
    return f"leftover after {code}: {left}" if left else None


def _job(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """A job of the worker with odd values, or that is no JSON."""
    scan = image_file(noise(5, 6, 7), folder / "scan.nii.gz")
    job: dict[str, Any] = {"input": str(scan), "output": str(folder / "o.nii.gz"), "model": "linear", "factor": 2}
    words = ["job"]
    for _ in range(int(rng.integers(1, 3))):
        fields = [
            *job,
            "spacing",
            "plane",
            "slice_axis",
            "tile",
            "threads",
            "truth",
            "error_map",
            "schema",
            "task",
            "series",
            "odd",
        ]
        name = odd_volumes.one_of(rng, *fields)
        value = odd_volumes.one_of(rng, None, True, -1, 1e308, 10**30, 0.5, [], {}, [1, 2], {"a": 1}, *JUNK)
        job[name] = value
        words.append(f"{name} = {value!r}")
    text = json.dumps(job).encode()
    how = odd_volumes.one_of(rng, "", "", "", "mark", "cut", "deep", "bytes", "list")
    text = {
        "mark": b"\xef\xbb\xbf" + text, "cut": text[: len(text) // 2], "deep": b"[" * 5000, "bytes": b"\xff\xfe" + text,
        "list": b"[" + text + b"]",
    }.get(how, text)  # fmt: skip
    (folder / "job.json").write_bytes(text)
    before = _listing(folder)
    code, printed = _process(["worker", str(folder / "job.json")])
    wrong = _judged(code, printed, folder, before, {"o.nii.gz", "o.json", *_names(job, folder)})
    return {"words": [*words, how], "outcome": f"job ended with {code}", "wrong": wrong}


def _names(job: dict[str, Any], folder: Path) -> set[str]:
    """The results that the job may have been told to write somewhere else."""
    return {"o.json"} if not isinstance(job.get("error_map"), str) else {"o.json", Path(job["error_map"]).name}


def _process(arguments: list[str]) -> tuple[int, str]:
    """As `_shell`, with what the command writes to the process's own standard output, as the worker does."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            code, text = _shell(arguments)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        return code, text + file.read().decode(errors="replace")


def _model(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """A model file whose header is odd or damaged, in a folder of models that is listed, shown, verified or used."""
    card = {
        "id": "odd",
        "title": "Odd",
        "version": "1",
        "architecture": "rdst",
        "task": "super-resolve",
        "plane": "in-plane",
    }
    data = bytes(int(rng.integers(0, 64)))
    header: dict[str, Any] = {"__metadata__": {"card": json.dumps(card), "digest": "0" * 64}}
    header["w"] = {"dtype": "F16", "shape": [len(data) // 2], "data_offsets": [0, len(data) // 2 * 2]}
    for _ in range(int(rng.integers(0, 3))):
        where = odd_volumes.one_of(rng, "w", "__metadata__", "x")
        header[where] = odd_volumes.one_of(
            rng, None, {}, [], {"dtype": "F16", "shape": [-1], "data_offsets": [8, 0]}, *JUNK
        )
    text = json.dumps(header).encode()
    length = odd_volumes.one_of(rng, len(text), len(text), len(text), 0, 1, 2**63, 2**64 - 1, len(text) + 1)
    content = struct.pack("<Q", length) + text + data
    content = content[: int(rng.integers(0, len(content) + 1))] if rng.random() < 0.2 else content
    (folder / "models").mkdir()
    (folder / "models" / "odd.safetensors").write_bytes(content)
    scan = image_file(noise(5, 6, 7), folder / "scan.nii.gz")
    before = _listing(folder)
    path, models = str(folder / "models" / "odd.safetensors"), ["--models", str(folder / "models")]
    use = ["run", str(scan), "-o", str(folder / "o.nii.gz"), "-m"]
    lines = (
        ["models", *models],
        ["models", "--json", *models],
        ["models", "show", path],
        ["models", "verify", *models],
    )
    arguments = odd_volumes.one_of(rng, *lines, [*use, path], [*use, "odd", *models])
    code, printed = _shell(arguments)
    wrong = _judged(code, printed, folder, before, set())
    return {"words": ["model", arguments[0], text[:80].decode()], "outcome": f"model ended with {code}", "wrong": wrong}


def _command(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """A command line with odd words in it."""
    scan = str(image_file(noise(5, 6, 7), folder / "scan.nii.gz"))
    out = str(folder / "o.nii.gz")
    lines = (
        ["run", scan, "-o", out, "-m", "linear", "--factor", "2"],
        ["run", scan, "-o", out, "-m", "bspline", "--spacing", "1", "1", "1"],
        ["translate", scan, "-o", out, "-m", "linear", "--to", "T2w"],
        ["models", "show", "linear"],
        ["inspect", scan],
        ["inspect", "--json", str(folder)],
        ["worker", scan],
    )
    line = list(lines[int(rng.integers(len(lines)))])
    for _ in range(int(rng.integers(1, 3))):
        where, what = int(rng.integers(0, len(line) + 1)), odd_volumes.one_of(rng, "replace", "insert", "remove")
        junk = odd_volumes.one_of(
            rng, *JUNK, "--tile", "--series", "--json", "--not-labels", "--factor", str(folder), scan
        )
        if what == "insert":
            line.insert(where, junk)
        elif line and where < len(line):
            line[where : where + 1] = [junk] if what == "replace" else []
    if line[:1] in (["demo"], ["train"], ["evaluate"], []) or "-" in line:
        line = ["--version"]
    before = _listing(folder)
    here = os.getcwd()
    os.chdir(folder)
    try:
        code, text = _process(line)
    finally:
        os.chdir(here)
    wrong = _judged(code, text, folder, before, _listing(folder))
    return {"words": ["command", *map(repr, line)], "outcome": f"command ended with {code}", "wrong": wrong}


def run(seed: int, count: int, first: int = 0) -> None:
    """Answer the inputs, a line each: its number before, so that a crash can be named, and what was found after it."""
    import logging

    logging.disable(logging.CRITICAL)  # of nibabel and pydicom, which the odd inputs are made with
    results = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    for number in range(first, first + count):
        print(json.dumps({"begins": number}), file=results, flush=True)
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = answer(seed, number)
        except Exception:
            found = {"number": number, "words": [], "outcome": "exception", "wrong": traceback.format_exc()[-900:]}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(found), file=results, flush=True)


if __name__ == "__main__":
    run(*(int(word) for word in sys.argv[1:4]))
