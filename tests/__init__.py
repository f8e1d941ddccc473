import signal
import sys
import types
import unittest

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background job; the tests send themselves Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    import tracemalloc  # noqa: F401
except ImportError:  # on PyPy: the tests that measure memory with it skip themselves when they start it

    class WithoutTracemalloc(types.ModuleType):
        def start(self):
            raise unittest.SkipTest("no tracemalloc")

    sys.modules["tracemalloc"] = WithoutTracemalloc("tracemalloc")
