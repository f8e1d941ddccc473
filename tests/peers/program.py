"""Real programs as the other side: found on PATH, started on loopback in a folder of their own."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from tests.scripted_server import LoopbackTestCase, free_port


def find(name):
    """Where a program is, looked for also where daemons live."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")


class ProgramCase(LoopbackTestCase):
    """Each class starts its program once. `PROGRAM` is its name; `start` configures it and gives its command."""

    PROGRAM = None

    @classmethod
    def setUpClass(cls):
        cls.path = cls.PROGRAM and find(cls.PROGRAM)
        if not cls.path:
            raise unittest.SkipTest("%s is not installed" % cls.PROGRAM)
        cls.folder = tempfile.mkdtemp()
        os.chmod(cls.folder, 0o755)
        cls.port = free_port()
        cls.log = open(os.path.join(cls.folder, "log"), "wb")
        cls.process = subprocess.Popen(
            cls.start(), cwd=cls.folder, stdout=cls.log, stderr=cls.log, stdin=subprocess.DEVNULL
        )
        try:
            cls.wait_until_it_listens()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.process.kill()  # there is nothing to save, and squid takes two seconds over a polite end
        cls.process.wait()
        cls.log.close()
        shutil.rmtree(cls.folder, True)

    @classmethod
    def wait_until_it_listens(cls):
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", cls.port), 1).close()
                return
            except OSError:
                if cls.process.poll() is not None or time.monotonic() > deadline:
                    with open(cls.log.name, "rb") as log:
                        raise unittest.SkipTest(
                            "%s does not start: %s" % (cls.PROGRAM, log.read()[-500:].decode("utf-8", "replace"))
                        ) from None
                time.sleep(0.02)

    @classmethod
    def write(cls, name, text):
        path = os.path.join(cls.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path
