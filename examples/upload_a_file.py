"""Uploads a file behind a progress bar: percent, MiB/s, time left; plain lines where the output is no terminal.
Run: PYTHONPATH=. python3 examples/upload_a_file.py movie.mp4
(to AEROSTACK_SERVER_URL; with no AEROSTACK_API_KEY, to one of your own)"""

import contextlib
import os
import pathlib
import sys
import time

from aerostack_lite import SDK
from local_platform import LocalPlatform


def progress_bar(out):
    terminal, started, shown = out.isatty(), time.monotonic(), None

    def progress(sent, total):
        nonlocal started, shown
        if not sent:  # the first attempt begins, or the next
            started, shown = time.monotonic(), None
        seconds, share = max(time.monotonic() - started, 1e-6), sent / total if total else 0
        step = int(seconds * 10) if terminal else int(share * 10) if total else sent >> 26
        if step != shown or sent == total:
            shown, left = step, seconds * (1 - share) / share if share else 0
            text = "%3d %%  %7.1f MiB  %6.1f MiB/s  %4d s left" % (
                share * 100,
                sent / 2**20,
                sent / 2**20 / seconds,
                left,
            )
            out.write("\r[%-30s] %s" % ("=" * int(share * 30), text) if terminal else text + "\n")
            out.flush()

    return progress


with contextlib.ExitStack() as stack:
    file, key, url = (
        pathlib.Path(sys.argv[1]),
        os.environ.get("AEROSTACK_API_KEY"),
        os.environ.get("AEROSTACK_SERVER_URL"),
    )
    if not key:
        key, url = "any key", stack.enter_context(LocalPlatform()).url
    sdk = stack.enter_context(SDK(key, server_url=url))
    result = sdk.storage.storage_upload(key=file.name, file=file, progress=progress_bar(sys.stdout))
    print("\n" if sys.stdout.isatty() else "", "Stored at ", result.url, sep="")
