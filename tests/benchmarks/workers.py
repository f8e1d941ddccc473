"""The contenders: the same work, each library's own way. Runs inside the virtual environment, one process for each.

    python -I workers.py KIND CONTENDER URL [CONCURRENT | FILE]

For every number N read from standard input, N calls are made; the seconds that they took and the peak memory of this
process in KiB so far are printed.
"""

import asyncio
import concurrent.futures
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request

PATH = "/cache/set"
BODY = {"key": "user:42", "value": {"name": "Ada Lovelace", "tags": ["a", "b"], "visits": 3}, "ttl": 3600}
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "benchmark",
    "X-Aerostack-Key": "key",
}


def encode():
    return json.dumps(BODY, separators=(",", ":")).encode()


# ---- One call after another, or from many threads: make(url) -> call()


def sdk(module):
    def make(url):
        cache = __import__(module).SDK("key", server_url=url).cache
        return lambda: cache.cache_set(request=BODY).success

    return make


def http_client(url):
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port)

    def call():
        connection.request("POST", parts.path + PATH, encode(), HEADERS)
        return json.loads(connection.getresponse().read())["success"]

    return call


def urllib_request(url):
    def call():
        request = urllib.request.Request(url + PATH, encode(), HEADERS)
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())["success"]

    return call


def urllib3(url):
    import urllib3

    pool = urllib3.PoolManager()
    return lambda: json.loads(pool.request("POST", url + PATH, body=encode(), headers=HEADERS).data)["success"]


def requests(url):
    import requests

    session = requests.Session()
    return lambda: session.post(url + PATH, data=encode(), headers=HEADERS).json()["success"]


def httpx(url):
    import httpx

    client = httpx.Client()
    return lambda: client.post(url + PATH, content=encode(), headers=HEADERS).json()["success"]


# ---- Many at once on one event loop: await make(url) -> async call()


def sdk_async(module):
    async def make(url):
        cache = __import__(module).SDK("key", server_url=url).cache

        async def call():
            return (await cache.cache_set_async(request=BODY)).success

        return call

    return make


async def aiohttp(url):
    import aiohttp

    session = aiohttp.ClientSession()

    async def call():
        async with session.post(url + PATH, data=encode(), headers=HEADERS) as response:
            return json.loads(await response.read())["success"]

    return call


async def httpx_async(url):
    import httpx

    client = httpx.AsyncClient()

    async def call():
        return (await client.post(url + PATH, content=encode(), headers=HEADERS)).json()["success"]

    return call


# ---- A file from disk: make(url, file) -> call()


def upload_request(file):
    return {"key": "f.bin", "file": {"file_name": "f.bin", "content": file}}


def upload(module):
    def make(url, path):
        client = __import__(module).SDK("key", server_url=url)
        client.cache.cache_set(request=BODY)

        def call():
            with open(path, "rb") as file:
                return client.storage.storage_upload(request=upload_request(file)).url

        return call

    return make


def upload_async(module):
    def make(url, path):
        client = __import__(module).SDK("key", server_url=url)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.cache.cache_set_async(request=BODY))

        def call():
            with open(path, "rb") as file:
                return loop.run_until_complete(client.storage.storage_upload_async(request=upload_request(file))).url

        return call

    return make


def upload_curl(url, path):
    command = ["curl", "--fail", "--silent", "-H", "X-Aerostack-Key: key", "-F", "key=f.bin", "-F", "file=@" + path]
    return lambda: json.loads(subprocess.check_output(command + [url + "/storage/upload"]))["url"]


# ---- How the calls are made: prepare(make, url, ...) -> run(n)


def one_by_one(make, *args):
    call = make(*args)

    def run(n):
        for _ in range(n):
            assert call()

    return run


def from_threads(make, url, concurrent_calls):
    call = make(url)
    executor = concurrent.futures.ThreadPoolExecutor(int(concurrent_calls))

    def some(n):
        for _ in range(n):
            assert call()

    def run(n):
        share = n // int(concurrent_calls)
        list(executor.map(some, [share] * int(concurrent_calls)))

    return run


def from_tasks(make, url, concurrent_calls):
    loop = asyncio.new_event_loop()
    call = loop.run_until_complete(make(url))

    async def some(n):
        for _ in range(n):
            assert await call()

    async def all_of_them(n):
        await asyncio.gather(*[some(n // int(concurrent_calls)) for _ in range(int(concurrent_calls))])

    return lambda n: loop.run_until_complete(all_of_them(n))


CONTENDERS = {
    "sync": {
        "aerostack_lite": sdk("aerostack_lite"),
        "official": sdk("aerostack"),
        "http.client": http_client,
        "urllib": urllib_request,
        "urllib3": urllib3,
        "requests": requests,
        "httpx": httpx,
    },
    "async": {
        "aerostack_lite": sdk_async("aerostack_lite"),
        "official": sdk_async("aerostack"),
        "httpx": httpx_async,
        "aiohttp": aiohttp,
    },
    "upload": {
        "aerostack_lite": upload("aerostack_lite"),
        "aerostack_lite async": upload_async("aerostack_lite"),
        "official": upload("aerostack"),
        "curl": upload_curl,
    },
}
PREPARE = {
    "sync": (one_by_one, "sync"),
    "threads": (from_threads, "sync"),
    "async": (from_tasks, "async"),
    "upload": (one_by_one, "upload"),
}


def peak_memory():
    """In KiB. Not getrusage(): its figure is inherited from the process that started this one."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main(kind, contender, *args):
    prepare, table = PREPARE[kind]
    run = prepare(CONTENDERS[table][contender], *args)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - start, peak_memory(), flush=True)
    os._exit(0)  # no contender is closed: what that takes is not measured, and some complain


if __name__ == "__main__":
    main(*sys.argv[1:])
