"""PyPy: the bare tests of most sections under it. They take a minute or two, and therefore wait to be asked for:

PYPY=pypy3 python3 -m unittest tests.peers.test_pypy
"""

import os
import re
import shutil
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYPY = shutil.which(os.environ.get("PYPY", ""))
SECTIONS = """
async decode encode_json errors models multipart official_names operations retries sdk
transport_connect transport_keep_alive transport_redirects transport_requests transport_responses
""".split()

# PyPy ends an object some time after its last reference, forks with one thread only, and is slow before it is fast.
LEFT_OUT = "forgotten|dropp|nobody_holds|descriptor|fork|child|deadline"

PROGRAM = """if 1:
    import re, sys, unittest

    def tests_of(suite):
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                yield from tests_of(test)
            elif not re.search(%r, test.id()):
                yield test

    tests = unittest.defaultTestLoader.loadTestsFromNames(%r)
    result = unittest.TextTestRunner(verbosity=2, warnings="error").run(unittest.TestSuite(tests_of(tests)))
    sys.exit(not result.wasSuccessful())
"""


@unittest.skipUnless(PYPY, "PYPY names no program")
class PyPyTest(unittest.TestCase):
    def test_the_bare_tests_pass_under_it(self):
        done = subprocess.run(
            [PYPY, "-X", "faulthandler", "-c", PROGRAM % (LEFT_OUT, ["tests.test_" + name for name in SECTIONS])],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=400,
        )
        output = done.stderr.decode("utf-8", "replace")
        passed = len(re.findall(r"\.\.\. ok$", output, re.M))
        failed = re.findall(r"^(?:ERROR|FAIL): .*$", output, re.M)
        self.assertEqual(done.returncode, 0, "\n".join([*failed, output[-10000:]]))
        self.assertGreater(passed, 300, output[-1000:])


if __name__ == "__main__":
    unittest.main()
