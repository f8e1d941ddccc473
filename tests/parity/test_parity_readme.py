"""Every Python block of the official README, run unchanged against our file saved as aerostack.py.

The README comes from AEROSTACK_OFFICIAL_README, or out of the sdist that pip downloads.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

from tests.parity import MISSING, OURS, SELF_CHECK
from tests.parity.beside import describe_request
from tests.parity.recorder import Answer, RecordingServer
from tests.parity.table import COUNT, SEEN

# Runs before the block: the two official servers are the recording one.
PRELUDE = """
import socket
import aerostack

aerostack.SERVERS[:] = ["{origin}/production", "{origin}/local"]
_resolve = socket.getaddrinfo


def _getaddrinfo(host, port, *args, **kwargs):
    if port in (8787, "8787"):
        host, port = "127.0.0.1", {port}
    return _resolve(host, port, *args, **kwargs)


socket.getaddrinfo = _getaddrinfo
"""

CHAT = Answer(200, {"response": "hi", "url": "https://cdn/x"})
REFUSED = Answer(401, {"code": "AUTH_INVALID_CREDENTIALS", "message": "no such user", "details": {"left": 2}})

# One row per block, in the README's order:
# first words -> (requests that arrive, words on its output, how it was meant where it does not run as printed)
BLOCKS = [
    ("#!/usr/bin/env -S uv run", [], "", None),
    ("# Synchronous Example", ["/production/ai/chat"], "response='hi'", None),
    ("# Asynchronous Example", ["/production/ai/chat"], "response='hi'", None),
    ("from aerostack import SDK\n\nwith", ["/production/ai/chat"], "response='hi'", None),
    ("from aerostack import SDK\n\nwith", ["/production/storage/upload"], "url='https://cdn/x'", None),
    (
        "from aerostack import SDK\nfrom aerostack.utils",
        ["/production/ai/chat"],
        "response='hi'",
        (
            "a positional argument after a keyword is no Python: the request goes by position, too",
            "ai_chat(request={",
            "ai_chat({",
        ),
    ),
    ("from aerostack import SDK\nfrom aerostack.utils", ["/production/ai/chat"], "response='hi'", None),
    ("from aerostack import SDK, errors", ["/production/auth/signin"], "no such user", None),
    ("from aerostack import SDK\n\nwith SDK(\n    server_idx", ["/production/ai/chat"], "response='hi'", None),
    ("from aerostack import SDK\n\nwith SDK(\n    server_url", ["/v1/ai/chat"], "response='hi'", None),
    ("from aerostack import SDK\nimport httpx", [], "", None),
    (
        "from aerostack import SDK\nfrom aerostack.httpclient",
        [],
        "",
        (
            "it never imports the names of its annotations",
            "import httpx\n",
            "import httpx\nfrom typing import Any, Optional, Union\n",
        ),
    ),
    (
        "from aerostack import SDK\ndef main",
        [],
        "",
        ("a body of only a comment is no Python", "# Rest of application here...", "pass"),
    ),
    ("from aerostack import SDK\nimport logging", [], "", None),
]
# Those that ours alone runs, by the row of the table: AEROSTACK_API_KEY is set where a key is missing.
DIFFERENT = dict.fromkeys((0, 10, 11, 13), "`api_key_auth`")
DIFFERENT[5] = "arguments"


def official_readme():
    """The README of the published sdist, or why it is not here."""
    path = os.environ.get("AEROSTACK_OFFICIAL_README")
    if path:
        with open(path, encoding="utf-8") as file:
            return file.read(), ""
    with tempfile.TemporaryDirectory() as folder:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            "aerostack",
            "--dest",
            folder,
            "aerostack==0.1.2",
        ]
        try:
            subprocess.run(pip, capture_output=True, timeout=60)
        except subprocess.TimeoutExpired:
            pass
        for archive in glob.glob(os.path.join(folder, "aerostack-*.tar.gz")):
            with tarfile.open(archive) as sdist:
                return sdist.extractfile("aerostack-0.1.2/README.md").read().decode(), ""
    return "", "the official README is not here: set AEROSTACK_OFFICIAL_README, or let pip reach PyPI"


@unittest.skipIf(MISSING, MISSING)
class TheOfficialReadme(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        text, reason = official_readme()
        if reason:
            raise unittest.SkipTest(reason)
        cls.blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)

    def run_block(self, block, ours, answer):
        """Run one block in a fresh interpreter; give what it printed, wrote as errors, and sent."""
        with tempfile.TemporaryDirectory() as folder, RecordingServer() as server:
            server.play([answer])
            if ours:
                shutil.copy(OURS.__file__, os.path.join(folder, "aerostack.py"))
            for name, content in (
                ("block.py", block),
                ("example.file", "jpeg"),
                ("sitecustomize.py", PRELUDE.format(origin=server.origin, port=server.port)),
            ):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(content)
            environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            environment.update(PYTHONPATH=folder, AEROSTACK_API_KEY="<YOUR_API_KEY_HERE>", PYTHONIOENCODING="utf-8")
            run = subprocess.run(
                [sys.executable, "block.py"],
                cwd=folder,
                env=environment,
                timeout=60,
                capture_output=True,
            )
            return run.returncode, run.stdout.decode(), run.stderr.decode(), list(server.requests)

    def test_has_the_blocks_that_we_know(self):
        self.assertEqual(len(self.blocks), len(BLOCKS))
        for block, (start, _, _, _) in zip(self.blocks, BLOCKS):
            self.assertTrue(block.startswith(start), block)

    def test_every_block_runs(self):
        for number, (block, (_, paths, words, meant)) in enumerate(zip(self.blocks, BLOCKS)):
            if number in DIFFERENT:
                SEEN[DIFFERENT[number]] += 1
            else:
                COUNT["cases"] += 1
            with self.subTest(block=number, meant=meant and meant[0]):
                if meant is not None:
                    self.assertIn(meant[1], block)
                    block = block.replace(meant[1], meant[2])
                answer = REFUSED if "auth_signin" in block else CHAT
                if SELF_CHECK and number in DIFFERENT:
                    continue
                code, output, complaint, requests = self.run_block(block, not SELF_CHECK, answer)
                self.assertEqual((code, [request.target for request in requests]), (0, paths), complaint)
                self.assertIn(words, output)
                self.assertTrue(not complaint or "logging" in block, complaint)
                for request in requests:
                    self.assertEqual(request.values("x-aerostack-key"), ["<YOUR_API_KEY_HERE>"])
                if number in (1, 2, 4, 7):
                    _, _, _, official = self.run_block(block, False, answer)
                    self.assertEqual(
                        [describe_request(request) for request in official],
                        [describe_request(request) for request in requests],
                    )

    def test_the_blocks_that_do_not_run_with_the_official_sdk(self):
        for number in sorted(DIFFERENT.keys() | {number for number, row in enumerate(BLOCKS) if row[3]}):
            with self.subTest(block=number):
                code, _, complaint, _ = self.run_block(self.blocks[number], False, CHAT)
                self.assertNotEqual(code, 0)
                self.assertRegex(complaint, "SyntaxError|IndentationError|NameError|api_key_auth")


if __name__ == "__main__":
    unittest.main()
