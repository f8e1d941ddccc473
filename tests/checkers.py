"""mypy and pyright over a program whose lines end in what a checker has to say of them.

reveal_type(sdk.cache.cache_get(key="k"))  # CacheGetResponseBody
sdk.cache.cache_get(key=5)  # refused
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import unittest


class CheckersCase(unittest.TestCase):
    """Tests of what the checkers find in the files of a folder: {(file, line): words}, the types and the errors."""

    def run_checker(self, name, folder, *arguments):
        if not importlib.util.find_spec(name):
            self.skipTest("%s is not installed" % name)
        run = subprocess.run([sys.executable, "-m", name, *arguments], cwd=folder, timeout=300, stdout=subprocess.PIPE)
        return run.stdout.decode()

    def mypy(self, folder, *arguments):
        cache = os.environ.get("MYPY_CACHE_DIR", os.devnull)
        strict = ("--strict", "--no-pretty", "--no-error-summary", "--cache-dir", cache)
        output = self.run_checker("mypy", folder, *strict, *arguments)
        revealed, refused = {}, {}
        for file, line, kind, words in re.findall(r"^(.+?):(\d+): (\w+): (.*)$", output, re.M):
            if words.startswith("Revealed type is"):
                revealed[file, int(line)] = words.split('"')[1]
            elif kind == "error":
                refused[file, int(line)] = words
        self.assertTrue(revealed or refused or not output, output)
        return revealed, refused

    def pyright(self, folder, *arguments, severities=("error",)):
        output = self.run_checker("pyright", folder, "--outputjson", *arguments)
        revealed, refused = {}, {}
        for found in json.loads(output)["generalDiagnostics"]:
            place = os.path.relpath(found["file"], os.path.realpath(folder)), found["range"]["start"]["line"] + 1
            kind = re.match(r'Type of ".*" is "(.*)"$', found["message"], re.S)
            if kind:
                revealed[place] = kind.group(1)
            elif found["severity"] in severities:
                refused[place] = found["message"]
        return revealed, refused

    def judge(self, file, program, found):
        """The checker's words about every line of a program are those that the line itself ends in."""
        revealed, refused = found
        self.assertTrue(revealed)
        for number, text in enumerate(program.splitlines(), 1):
            code, _, expected = text.partition("  # ")
            place = file, number
            with self.subTest(code.strip()):
                self.assertEqual(place in refused, expected == "refused", refused.get(place))
                if "reveal_type" in code:
                    seen = set(re.findall(r"(?:\w+\.)*(\w+)", revealed[place])) - {"Union"}
                    self.assertEqual(seen, set(expected.split(", ")), revealed[place])
