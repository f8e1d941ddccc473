"""A thousand calls, fifty at a time: the results in order, a line of progress, and the failures told apart.

Run: python3 examples/many_at_once.py
Without AEROSTACK_API_KEY it calls an Aerostack of its own.
"""

import asyncio
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK, errors
from local_platform import LocalPlatform

COUNT = 1000
AT_ONCE = 50


async def main() -> None:
    started = time.monotonic()
    done = 0

    async def square(number):
        nonlocal done
        try:
            found = await sdk.database.db_query_async(sql="SELECT ? * ? AS square", params=[number, number])
            return found.results and found.results[0]["square"]
        except errors.AerostackError as error:  # one failure need not end the other 999
            return error
        finally:
            done += 1
            if done % (COUNT // 10) == 0:
                print("%5d of %d" % (done, COUNT), end="\r" if sys.stdout.isatty() else "\n", flush=True)

    async with SDK(max_workers=AT_ONCE) as sdk:  # max_workers bounds, gather keeps the order
        results = await asyncio.gather(*[square(number) for number in range(COUNT)])
    seconds = time.monotonic() - started
    failed = sum(isinstance(result, Exception) for result in results)
    print("%d calls in %.1f s, %d failed; the last results are %s" % (COUNT, seconds, failed, results[-3:]))


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        asyncio.run(main())
