"""Python 3.14, by the npm package pyodide: CPython as WebAssembly, run by node. It has neither sockets nor threads.

npm install pyodide@^314    # with NODE_PATH set to its node_modules
"""

import os
import shutil
import subprocess
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(FOLDER))

# What cannot be had there is a reason to skip.
PROGRAM = """
import asyncio, socket, subprocess, sys, threading, time, unittest, warnings

assert sys.version_info[:2] == (3, 14), sys.version

def skip(*_, **options):
    raise unittest.SkipTest("needs a socket, a thread, a process, or a measure of CPU time")

asyncio.run = threading.Thread.start = subprocess.Popen.__init__ = socket.socket.bind = time.process_time = skip
warnings.simplefilter("error")
sys.dont_write_bytecode = True
sys.path.insert(0, "/repository")
tests = unittest.defaultTestLoader.loadTestsFromName("%s")
unittest.TextTestRunner(sys.stderr, verbosity=2, warnings="error").run(tests).wasSuccessful()
"""


@unittest.skipUnless(shutil.which("node"), "node is not installed")
class PyodideTest(unittest.TestCase):
    def check(self, tests):
        done = subprocess.run(
            ["node", os.path.join(FOLDER, "pyodide.js"), ROOT],
            input=(PROGRAM % tests).encode(),
            timeout=120,
            capture_output=True,
        )
        output = done.stderr.decode()
        if "Cannot find module 'pyodide'" in output:
            self.skipTest("pyodide is not installed")
        self.assertEqual(done.returncode, 0, output[-5000:])
        self.assertGreater(output.count("... ok\n"), 5, output[-5000:])

    def test_imports_calls_and_errors_work_on_python_3_14(self):
        self.check("tests.peers.pyodide_tests")

    def test_models_work_on_python_3_14(self):
        self.check("tests.test_models")


if __name__ == "__main__":
    unittest.main()
