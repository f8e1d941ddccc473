"""The same calls through the official SDK and through ours, side by side.

Development only: `pip install aerostack==0.1.2 hypothesis`, then `python3 -m tests.parity` from the repository's
root. Without them every comparison skips and says why. AEROSTACK_PARITY_OURS=aerostack puts the official SDK on both
sides, which checks the suite itself.
"""

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
