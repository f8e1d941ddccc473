"""A thousand calls, fifty at a time: the results in order, a line of progress, and the failures told apart.
Run: PYTHONPATH=. python3 examples/many_at_once.py
(to AEROSTACK_SERVER_URL; with no AEROSTACK_API_KEY, to one of your own)"""

import asyncio
import os
import sys
import time

from aerostack_lite import SDK, errors
from local_platform import LocalPlatform

COUNT, AT_ONCE = 1000, 50


async def main(key=None, url=None):
    done, started = 0, time.monotonic()

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

    async with SDK(key, server_url=url, max_workers=AT_ONCE) as sdk:  # max_workers bounds, gather keeps the order
        results = await asyncio.gather(*[square(number) for number in range(COUNT)])
    failed = sum(isinstance(result, Exception) for result in results)
    print(
        "%d calls in %.1f s, %d failed; the last results are %s"
        % (COUNT, time.monotonic() - started, failed, results[-3:])
    )


if os.environ.get("AEROSTACK_API_KEY"):
    asyncio.run(main())
else:
    with LocalPlatform() as platform:
        asyncio.run(main("any key", platform.url))
