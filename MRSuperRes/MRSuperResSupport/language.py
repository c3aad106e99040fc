"""The module's own translations, in the application's language.

Texts are looked up as all of Slicer's are (`slicer.i18n.tr`, Qt's translators); Slicer itself loads only translations that the
LanguageTools extension has downloaded, so the module brings its own: Resources/Translations/MRSuperRes_LANGUAGE.qm.
"""

from pathlib import Path

import qt
import slicer

FOLDER = Path(__file__).resolve().parent.parent / "Resources" / "Translations"
_installed = {}


def chosen():
    """The language that the user has chosen for Slicer, such as "de-DE"; "" for English."""
    settings = slicer.app.userSettings()
    if str(settings.value("Internationalization/Enabled")).lower() not in ("true", "1"):
        return ""
    return str(settings.value("language") or "").replace("_", "-")


def install():
    """Load the translation of the chosen language, else one of the same language elsewhere; whether there is one."""
    language = chosen()
    if not language or language.startswith("en"):
        return False
    files = sorted(FOLDER.glob(f"MRSuperRes_{language.split('-')[0]}*.qm"))
    file = next((path for path in files if path.stem.endswith(f"_{language}")), next(iter(files), None))
    if file is None:
        return False
    if file not in _installed:
        translator = qt.QTranslator()
        if not translator.load(str(file)):
            return False
        qt.QCoreApplication.installTranslator(translator)
        _installed[file] = translator  # Qt does not keep it
    return True
