"""What a newcomer has: a folder with the file and the examples, a shell, an empty environment, and a server."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import aerostack_lite

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "examples")
MODULE = os.path.abspath(aerostack_lite.__file__)
PATIENCE_SECONDS = 60  # what a broken program gets before it is killed

# A certificate authority whose private key was thrown away: good for being read, and for nothing else.
COMPANY_CA = """\
-----BEGIN CERTIFICATE-----
MIIBkDCCATegAwIBAgIUGO8VSGv4h/WzOGz4zSE8a9bUdM4wCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSRXhhbXBsZSBDb21wYW55IENBMCAXDTI2MTEyMTA5MDU1M1oY
DzIxMjYxMDI4MDkwNTUzWjAdMRswGQYDVQQDDBJFeGFtcGxlIENvbXBhbnkgQ0Ew
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQqL3eHSfBtcbSexAYyqtXAcwtWS9X1
/Kxse0uJ9CedpT4noMY/wNjqyNtJiVG6UVBq6VMgQtohgoh4DzaaRwKLo1MwUTAd
BgNVHQ4EFgQUgHdSUiN2B1QCiWrjyLJpXIZ6daowHwYDVR0jBBgwFoAUgHdSUiN2
B1QCiWrjyLJpXIZ6daowDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBE
AiAIEeZinp4RJgQDJ7n3FGC2UCaZ6z8i/IvMcvNjmvf4VgIgGScTXOrfWru7Nq7N
ReIMfD8S7cnaBPAmPszr1FAc7WQ=
-----END CERTIFICATE-----
"""


def local_platform():
    """The module of the embedded Aerostack, which lies among the examples and in no package."""
    if EXAMPLES not in sys.path:
        sys.path.append(EXAMPLES)
    return importlib.import_module("local_platform")


def copy_module(target):
    """A copy of the module with its bytecode, so that not every Python that imports it compiles it."""
    shutil.copy2(MODULE, target)
    compiled, there = importlib.util.cache_from_source(MODULE), importlib.util.cache_from_source(target)
    if os.path.exists(compiled):
        os.makedirs(os.path.dirname(there), exist_ok=True)
        shutil.copy(compiled, there)


class Newcomer:
    """A folder of one's own, and programs that run in it. `with Newcomer() as newcomer: newcomer.sh("...")`."""

    def __enter__(self):
        self.folder = os.path.realpath(tempfile.mkdtemp())
        copy_module(self.path("aerostack_lite.py"))
        shutil.copytree(EXAMPLES, self.path("examples"), ignore=shutil.ignore_patterns("__pycache__"))
        # "python3" is the Python that runs this test, as strict as it can be.
        self.write("#!/bin/sh\nexec '%s' -W error \"$@\"\n" % sys.executable, "bin", "python3")
        os.chmod(self.path("bin", "python3"), 0o755)
        self.environment = {"PATH": self.path("bin") + os.pathsep + os.defpath, "LANG": "C.UTF-8"}
        self.environment.update(
            (name, os.environ[name]) for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ
        )
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, content, *names):
        os.makedirs(os.path.dirname(self.path(*names)), exist_ok=True)
        with open(self.path(*names), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return self.path(*names)

    def run(self, *command, **settings):
        """Run a program in the folder. What it says, and how it ends, as text: (status, output, errors)."""
        environment = dict(self.environment, **settings.pop("environment", {}))
        done = subprocess.run(
            command,
            cwd=settings.pop("cwd", self.folder),
            env=environment,
            timeout=PATIENCE_SECONDS,
            input=settings.pop("stdin", "").encode(),
            capture_output=True,
        )
        if settings:
            raise TypeError("unknown settings: %s" % ", ".join(settings))
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def sh(self, script, **settings):
        return self.run("sh", "-e", "-c", script, **settings)


@unittest.skipUnless(os.path.exists("/bin/sh"), "needs a POSIX shell")
class NewcomerTestCase(unittest.TestCase):
    """One folder and one platform for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.newcomer = Newcomer()
        cls.newcomer.__enter__()
        try:
            cls.platform = local_platform().LocalPlatform().start()
        except BaseException:
            cls.newcomer.__exit__()
            raise
        cls.platform.register_service("echo", lambda data: data)
        cls.newcomer.environment.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=cls.platform.url)

    @classmethod
    def tearDownClass(cls):
        cls.platform.close()
        cls.newcomer.__exit__()
