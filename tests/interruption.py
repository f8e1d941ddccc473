"""A signal whose handler, the program's own, raises an error in the midst of a call."""

import signal
import threading
import unittest

from tests.scripted_server import PATIENCE_SECONDS

CAN_INTERRUPT = hasattr(signal, "pthread_kill") and hasattr(signal, "SIGUSR1")


@unittest.skipUnless(CAN_INTERRUPT, "signals cannot be sent to a thread here")
class InterruptedCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        if threading.current_thread() is not threading.main_thread():
            self.skipTest("signals reach the main thread only")


class Interruption:
    """Within the block, the error is raised in the main thread, once, soon after `begin` was called.

    with Interruption(TimeoutError("enough")) as interruption:
        with ScriptedServer([expect, interruption.begin, hang]) as server:
            ...
    """

    def __init__(self, error):
        self.error, self.raised = error, threading.Event()
        self._threads = []

    def __enter__(self):
        self._handler_before = signal.signal(signal.SIGUSR1, self._handle)
        return self

    def __exit__(self, *_):
        self.raised.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        signal.signal(signal.SIGUSR1, self._handler_before)

    def begin(self, *_):
        thread = threading.Thread(target=self._send_signals, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _send_signals(self):
        # Python does not see a signal that comes just before a wait begins, so there are many.
        while not self.raised.wait(0.003):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def _handle(self, _, frame):
        while frame is not None and frame.f_code is not Interruption.begin.__code__:
            frame = frame.f_back
        if frame is None and not self.raised.is_set():  # the thread that sends it has been started
            self.raised.set()
            raise self.error
