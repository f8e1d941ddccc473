"""The same calls through the official SDK and through ours, side by side.

Development only; README.md says what to install, and lists the differences. `python3 -m unittest tests.parity` runs
everything, `python3 -m tests.parity` also writes README.md. Where something is not installed, the comparisons that need
it skip and say so. AEROSTACK_PARITY_OURS=aerostack puts the official SDK on both sides, which checks the suite itself.
"""

import fnmatch
import importlib
import os
import tempfile

# Hypothesis writes its tables somewhere; not into the repository.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "hypothesis"))


def _load():
    """The official package, ours, hypothesis; and what is missing, as one sentence."""
    found = []
    for name in ("aerostack", "httpx", "hypothesis"):
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            return None, "needs %s (pip install aerostack==0.1.2 hypothesis)" % name
    if found[0].__version__ != "0.1.2" or not hasattr(found[0], "OPENAPI_DOC_VERSION"):
        return None, "compares with aerostack 0.1.2, found %s" % found[0].__version__
    return found[0], ""


OFFICIAL, MISSING = _load()
OURS = importlib.import_module(os.environ.get("AEROSTACK_PARITY_OURS", "aerostack_lite"))
SELF_CHECK = OURS is OFFICIAL


def files(loader, pattern):
    """The tests in the files of this folder that match."""
    found = fnmatch.filter(os.listdir(os.path.dirname(os.path.abspath(__file__))), pattern)
    return loader.loadTestsFromNames(["tests.parity." + os.path.splitext(name)[0] for name in sorted(found)])


def load_tests(loader, tests, pattern):
    """What unittest calls: every file, and if nothing is left out, last the look at what the comparisons saw."""
    from tests.parity.table import AfterTheRun

    suite = files(loader, pattern or "test*.py")
    if pattern in (None, "test*.py") and not loader.testNamePatterns:
        suite.addTests(loader.loadTestsFromTestCase(AfterTheRun))
    return suite
