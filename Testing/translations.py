"""Keep the module's translations in step with its sources: `python Testing/translations.py` after changing what people read.

Reads every `_("...")` of the module and every text of its .ui file, in the contexts that Slicer's `slicer.i18n.tr` and Qt's
loader look them up in; brings MRSuperRes/Resources/Translations/*.ts in line, keeping what is translated; and compiles each to
.qm with Qt's `lrelease`, which PySide6-Essentials has. Untranslated texts stay unfinished: Slicer shows them in English.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[1]
MODULE = REPOSITORY / "MRSuperRes"
FOLDER = MODULE / "Resources" / "Translations"


def context_of(path: Path) -> str:
    """As `slicer.i18n.getContext` names it: the file's name, behind that of its package."""
    return f"{path.parent.name}.{path.stem}" if (path.parent / "__init__.py").is_file() else path.stem


def spoken(path: Path) -> Iterator[str]:
    """The texts of a Python file that are translated, in their order."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"):
            continue
        text = node.args[0]
        if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
            raise SystemExit(f"{path}:{node.lineno}: only a text that is written out can be translated")
        yield text.value


def sources() -> dict[str, list[str]]:
    """Context -> its texts, each once."""
    found: dict[str, list[str]] = {}
    for path in [MODULE / "MRSuperRes.py", *sorted((MODULE / "MRSuperResSupport").glob("*.py"))]:
        found.setdefault(context_of(path), []).extend(spoken(path))
    for path in sorted((MODULE / "Resources" / "UI").glob("*.ui")):
        root = ElementTree.parse(path).getroot()
        listed = {id(text) for strings in root.iter("stringlist") for text in strings.iter("string")}
        texts = [s.text or "" for s in root.iter("string") if s.get("notr") != "true" and id(s) not in listed]
        found.setdefault(root.findtext("class") or "", []).extend(text for text in texts if text)
    return {context: list(dict.fromkeys(texts)) for context, texts in found.items() if texts}


def translated(path: Path) -> dict[tuple[str, str], str]:
    """(context, text) -> translation, of what is finished in a .ts file."""
    found = {}
    for context in ElementTree.parse(path).getroot().iter("context"):
        for message in context.iter("message"):
            answer = message.find("translation")
            if answer is not None and answer.get("type") is None:
                found[context.findtext("name") or "", message.findtext("source") or ""] = answer.text or ""
    return found


def document(language: str, known: dict[tuple[str, str], str]) -> str:
    """The .ts file of a language."""
    root = ElementTree.Element("TS", version="2.1", language=language, sourcelanguage="en_US")
    for name, texts in sorted(sources().items()):
        context = ElementTree.SubElement(root, "context")
        ElementTree.SubElement(context, "name").text = name
        for text in texts:
            message = ElementTree.SubElement(context, "message")
            ElementTree.SubElement(message, "source").text = text
            answer = ElementTree.SubElement(message, "translation")
            answer.text = known.get((name, text))
            if answer.text is None:
                answer.set("type", "unfinished")
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n{text}\n'


def compiled(path: Path, out: Path) -> None:
    """Write `out` (.qm) from the .ts file `path`."""
    import PySide6

    tool = next(Path(PySide6.__path__[0]).glob("lrelease*"))
    subprocess.run([str(tool), "-silent", str(path), "-qm", str(out)], check=True)


def main() -> None:
    """Renew all .ts and .qm files; says what lacks a translation."""
    for path in sorted(FOLDER.glob("*.ts")):
        known = translated(path)
        path.write_text(document(path.stem.rsplit("_", 1)[-1].replace("-", "_"), known), encoding="utf-8")
        missing = sum(len(texts) for texts in sources().values()) - len(translated(path))
        compiled(path, path.with_suffix(".qm"))
        print(f"{path.name}: {len(translated(path))} texts, {missing} untranslated")


if __name__ == "__main__":
    sys.exit(main())
