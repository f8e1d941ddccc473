"""Uploads a file and shows its progress: percent, MiB/s, time left; plain lines where the output is no terminal.

Run: python3 examples/upload_a_file.py movie.mp4  (by default this very file)
Without AEROSTACK_API_KEY it calls an Aerostack of its own.
"""

import os
import pathlib
import sys
import time
from typing import Optional

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK
from local_platform import LocalPlatform


class Progress:
    """Prints how far an upload is: ten times a second on a terminal, else at each tenth of the file."""

    def __init__(self, out) -> None:
        self.out = out
        self.terminal = out.isatty()
        self.started = time.monotonic()
        self.shown = -1

    def __call__(self, sent: int, total: Optional[int]) -> None:
        if sent == 0:  # the first attempt begins, or the next
            self.started = time.monotonic()
            self.shown = -1
        if total is None:  # a pipe: nobody knows how much is left
            return
        seconds = max(time.monotonic() - self.started, 1e-6)
        step = int(seconds * 10) if self.terminal else 10 * sent // total
        if step == self.shown and sent < total:
            return
        self.shown = step
        share = sent / total
        left = seconds * (1 - share) / share if sent else 0
        numbers = (100 * share, sent / 2**20, sent / 2**20 / seconds, left)
        line = "%3d %%  %7.1f MiB  %6.1f MiB/s  %4d s left" % numbers
        self.out.write("\r[%-30s] %s" % ("=" * int(30 * share), line) if self.terminal else line + "\n")
        self.out.flush()


def main() -> None:
    file = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    with SDK() as sdk:
        result = sdk.storage.storage_upload(key=file.name, file=file, progress=Progress(sys.stdout))
    print("\n" if sys.stdout.isatty() else "", "Stored at ", result.url, sep="")


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        main()
