"""The contenders: the same work, each library's own way. Runs inside the virtual environment, one process for each.

    python -I workers.py WORK CONTENDER URL [ARGUMENT]

For every number N read from standard input, N calls are made, and one line of JSON says what they took: `cpu` and
`wall` in seconds for each call, `peak` and `added` in bytes: the process at its largest, and by how much it grew to it;
and what the work has to say besides. Each contender imports what it needs, and nothing else is in its process.
"""

import json
import os
import resource
import sys
import time

VALUE = {"name": "Ada Lovelace", "tags": ["a", "b"], "visits": 3}
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "benchmark",
    "X-Aerostack-Key": "key",
}


def encode():
    body = {"key": "user:42", "value": VALUE, "ttl": 3600}
    return json.dumps(body, separators=(",", ":")).encode()


# ---- An operation of an SDK: make(url, argument) -> call()


def cache_set(argument):
    return {"key": "user:42", "value": VALUE, "ttl": 3600}


def cache_set_10_mb(key):
    row = {"id": 1, key: None, "name": "Ada Lovelace", "visits": [1, 2, 3], "score": 0.5, "active": True}
    return {"key": "rows", "value": [row] * (10000000 // len(json.dumps(row, separators=(",", ":"))))}


def db_query(argument):
    return {"sql": "SELECT * FROM people"}


def storage_upload(path):
    return {"key": "file.bin", "file": {"file_name": "file.bin", "content": open(path, "rb")}}


# What makes the request, its service, its operation, and what a good answer has.
OPERATIONS = {
    cache_set: ("cache", "cache_set", "success"),
    cache_set_10_mb: ("cache", "cache_set", "success"),
    db_query: ("database", "db_query", "results"),
    storage_upload: ("storage", "storage_upload", "url"),
}


def connected(module, url):
    """An SDK whose imports, pool and connection are in place."""
    client = __import__(module).SDK("key", server_url=url)
    client.cache.cache_set(request=cache_set(None))
    return client


def sdk(module, request):
    service, operation, field = OPERATIONS[request]

    def make(url, argument):
        method = getattr(getattr(connected(module, url), service), operation)
        arguments = request(argument)
        return lambda: getattr(method(request=arguments), field)

    return make


def sdk_async(module, request):
    service, operation, field = OPERATIONS[request]

    def make(url, argument):
        method = getattr(getattr(__import__(module).SDK("key", server_url=url), service), operation + "_async")
        arguments = request(argument)

        async def call():
            return getattr(await method(request=arguments), field)

        return call

    return make


def both(kind, request):
    return {"aerostack_lite": kind("aerostack_lite", request), "official": kind("aerostack", request)}


# ---- The same cache_set without an SDK


def http_client(url, argument):
    import http.client
    import urllib.parse

    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port)

    def call():
        connection.request("POST", parts.path + "/cache/set", encode(), HEADERS)
        return json.loads(connection.getresponse().read())["success"]

    return call


def urllib_request(url, argument):
    import urllib.request

    def call():
        request = urllib.request.Request(url + "/cache/set", encode(), HEADERS)
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())["success"]

    return call


def urllib3(url, argument):
    import urllib3

    pool = urllib3.PoolManager(maxsize=int(argument or 1))
    return lambda: json.loads(pool.request("POST", url + "/cache/set", body=encode(), headers=HEADERS).data)["success"]


def requests(url, argument):
    import requests

    session = requests.Session()
    session.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=int(argument or 1)))
    return lambda: session.post(url + "/cache/set", data=encode(), headers=HEADERS).json()["success"]


def httpx(url, argument):
    import httpx

    client = httpx.Client()
    return lambda: client.post(url + "/cache/set", content=encode(), headers=HEADERS).json()["success"]


def aiohttp_async(url, argument):
    import aiohttp

    sessions = []

    async def call():
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        async with sessions[0].post(url + "/cache/set", data=encode(), headers=HEADERS) as response:
            return json.loads(await response.read())["success"]

    return call


def httpx_async(url, argument):
    import httpx

    client = httpx.AsyncClient(timeout=60)

    async def call():
        return (await client.post(url + "/cache/set", content=encode(), headers=HEADERS)).json()["success"]

    return call


CACHE_SET = {
    **both(sdk, cache_set),
    "http.client": http_client,
    "urllib.request": urllib_request,
    "urllib3": urllib3,
    "requests": requests,
    "httpx": httpx,
}
CACHE_SET_ASYNC = {**both(sdk_async, cache_set), "aiohttp": aiohttp_async, "httpx": httpx_async}


# ---- A fresh process that makes one call

SDK_SCRIPT = """
from {module} import SDK
assert SDK("key", server_url="{url}").cache.cache_set(request={request}).success
"""
URLLIB_REQUEST_SCRIPT = """
import json, urllib.request
request = urllib.request.Request("{url}/cache/set", json.dumps({request}).encode(), {headers})
with urllib.request.urlopen(request) as response:
    assert json.load(response)["success"]
"""
URLLIB3_SCRIPT = """
import json, urllib3
body = json.dumps({request}).encode()
assert urllib3.PoolManager().request("POST", "{url}/cache/set", body=body, headers={headers}).json()["success"]
"""
POST_SCRIPT = """
import {module}
assert {module}.post("{url}/cache/set", json={request}, headers={headers}).json()["success"]
"""


def script(text, module=None):
    def make(url, argument):
        import subprocess

        code = text.format(module=module, url=url, request=cache_set(None), headers=HEADERS)
        return lambda: subprocess.call([sys.executable, "-I", "-c", code]) == 0

    return make


COLD = {
    "aerostack_lite": script(SDK_SCRIPT, "aerostack_lite"),
    "official": script(SDK_SCRIPT, "aerostack"),
    "urllib.request": script(URLLIB_REQUEST_SCRIPT),
    "urllib3": script(URLLIB3_SCRIPT),
    "requests": script(POST_SCRIPT, "requests"),
    "httpx": script(POST_SCRIPT, "httpx"),
}


# ---- What other work is set beside


def json_loads(url, argument):
    """The work that no client can do without: the same rows out of the same JSON."""
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(url + "/db/query", b"{}", HEADERS)) as response:
        body = response.read()
    return lambda: json.loads(body)["results"]


def curl(url, path):
    import subprocess

    command = ["curl", "--fail", "--silent", "-H", "X-Aerostack-Key: key", "-F", "key=file.bin", "-F", "file=@" + path]
    return lambda: json.loads(subprocess.check_output(command + [url + "/storage/upload"]))["url"]


# ---- How the calls are made: prepare(make, url, argument) -> run(n) -> figures of its own


def one_by_one(make, url, argument):
    call = make(url, argument)

    def run(n):
        for _ in range(n):
            assert call()
        return {}

    return run


def more_than_empty(make, url, path):
    """A file, less what the same call takes with an empty one: nobody's start of a process or a connection counts."""
    whole, empty = one_by_one(make, url, path), one_by_one(make, url, path + ".empty")

    def run(n):
        start, took = clocked(empty, n), clocked(whole, n)
        return {clock: took[clock] - start[clock] for clock in took}

    return run


def from_threads(make, url, threads):
    import concurrent.futures

    call, executor = make(url, threads), concurrent.futures.ThreadPoolExecutor(int(threads))

    def some(n):
        waits = []
        for _ in range(n):
            start = time.perf_counter()
            assert call()
            waits.append(time.perf_counter() - start)
        return waits

    def run(n):
        return p99(executor.map(some, [n // int(threads)] * int(threads)))

    return run


def from_tasks(make, url, tasks):
    import asyncio

    call, loop = make(url, tasks), asyncio.new_event_loop()

    async def some(n):
        waits = []
        for _ in range(n):
            start = time.perf_counter()
            assert await call()
            waits.append(time.perf_counter() - start)
        return waits

    async def all_tasks(n):
        return await asyncio.gather(*[some(n // int(tasks)) for _ in range(int(tasks))], return_exceptions=True)

    def run(n):
        done = loop.run_until_complete(all_tasks(n))
        answered = [waits for waits in done if isinstance(waits, list)]
        return dict(p99(answered), unanswered=len(done) - len(answered))

    return run


def p99(waits_of_each):
    waits = sorted(wait for waits in waits_of_each for wait in waits)
    return {"p99": waits[len(waits) * 99 // 100]}


def beside_a_clock(make, url, argument):
    """One task awaits the call; another wants to run every millisecond, and notes by how much it was kept waiting."""
    import asyncio

    call, loop = make(url, argument), asyncio.new_event_loop()

    async def tick(holds):
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            holds.append(time.perf_counter() - start - 0.001)

    async def calls(n):
        holds = []
        clock = loop.create_task(tick(holds))
        for _ in range(n):
            assert await call()
        await asyncio.sleep(0.01)  # the clock notes what held it last
        clock.cancel()
        return {"hold": max(holds)}

    return lambda n: loop.run_until_complete(calls(n))


WORK = {
    "cold": (one_by_one, COLD),
    "cache_set": (one_by_one, CACHE_SET),
    "cache_set from threads": (from_threads, CACHE_SET),
    "cache_set from tasks": (from_tasks, CACHE_SET_ASYNC),
    "cache_set of 10 MB": (one_by_one, both(sdk, cache_set_10_mb)),
    "db_query": (one_by_one, {**both(sdk, db_query), "json.loads": json_loads}),
    "db_query beside a clock": (beside_a_clock, both(sdk_async, db_query)),
    "upload": (more_than_empty, {**both(sdk, storage_upload), "curl": curl}),
}


# ---- What they take


def cpu_seconds():
    """User and system time of all threads of this process and of the processes that it started."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def clocked(run, n):
    cpu, wall = cpu_seconds(), time.perf_counter()
    own = run(n)
    return {"wall": (time.perf_counter() - wall) / n, "cpu": (cpu_seconds() - cpu) / n, **own}


def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) * 1024 for text in status if text.startswith(line))


def main(work, contender, url, argument=""):
    prepare, contenders = WORK[work]
    run = prepare(contenders[contender], url, argument)
    for line in sys.stdin:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is counted anew from what is in memory now
        before = memory("VmHWM")
        figures = clocked(run, int(line))
        if contender != "curl":  # which is a process of its own
            peak = memory("VmHWM")
            figures.update(peak=peak, added=peak - before)
        print(json.dumps(figures), flush=True)
    os._exit(0)  # no contender is closed: what that takes is not measured, and some complain


if __name__ == "__main__":
    main(*sys.argv[1:])
