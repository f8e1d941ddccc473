"""What is measured, what we aim for, and the table."""

import argparse
import contextlib
import datetime
import functools
import os
import platform
import random
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

from . import server

HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "aerostack_lite.py")
OURS, OFFICIAL, START = "aerostack_lite", "official", "python -c pass"
COLUMNS = [OURS, OFFICIAL, "http.client", "urllib", "urllib3", "requests", "httpx", "aiohttp", "curl", START]
MIB = 1024 * 1024

# row: how many times ours each peer must take, at least
AIMS = {
    "cold": {OFFICIAL: 4.5},
    "cold, own bytecode missing": {OFFICIAL: 5},
    "cold, all bytecode missing": {OFFICIAL: 5},
    "cold, above interpreter start": {"urllib": 1 / 1.5},
    "memory after import": {OFFICIAL: 2},
    "one call, http": {OFFICIAL: 7, "http.client": 1 / 1.1, "urllib3": 1.3},
    "one call, https": {OFFICIAL: 7, "http.client": 1 / 1.1, "urllib3": 1.3},
    "50 tasks": {OFFICIAL: 8, "aiohttp": 1 / 2.5},
    "32 threads (official: tasks)": {OFFICIAL: 8},
    "upload, http": {OFFICIAL: 1, "curl": 1},
    "upload, http, async": {OFFICIAL: 1, "curl": 1},
    "upload, https": {OFFICIAL: 0.95, "curl": 0.95},
    "upload, https, async": {OFFICIAL: 0.95, "curl": 0.95},
}


# ---- Samples and rows


class Row:
    """One measurement: for each contender one sample per round; smaller is better."""

    def __init__(self, label, samples, show, ours=OURS, absolute=False):
        self.label, self.samples, self.show, self.absolute = label, dict(samples), show, absolute
        self.samples[OURS] = samples[ours]

    def ratio(self, peer):
        """How many times ours the peer takes: the median over the rounds of the ratio within the round."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.samples[peer], self.samples[OURS]))

    def cell(self, name):
        if name not in self.samples:
            return ""
        if name == OURS or self.absolute:
            return self.show(statistics.median(self.samples[name]))
        return "%.2f" % self.ratio(name)


def paired(rounds, contenders, measure):
    """measure(contender) for all of them in every round, in another order each time -> samples."""
    samples = {name: [] for name in contenders}
    for number in range(rounds):
        for name in random.Random(number).sample(sorted(samples), len(samples)):  # nobody has always the same before it
            samples[name].append(measure(name))
    return samples


def milliseconds(seconds):
    return "%.1f ms" % (seconds * 1e3)


def microseconds(seconds):
    return "%.0f µs" % (seconds * 1e6)


def calls_a_second(seconds):
    return "%.0f calls/s" % (1 / seconds)


def megabytes(size):
    return "%.1f MB" % (size / 1e6)


class Bench:
    """What the measurements share: the peers' Python, its environment, the server, how long we have."""

    def __init__(self, folder, python, urls, ca_file, options):
        self.folder, self.python, self.urls, self.options = folder, python, urls, options
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env.update(SSL_CERT_FILE=ca_file, REQUESTS_CA_BUNDLE=ca_file, CURL_CA_BUNDLE=ca_file)

    def rounds(self, usual):
        return self.options.rounds or (max(5, usual // 4) if self.options.quick else usual)

    def output(self, *command):
        return subprocess.check_output([self.python, "-I"] + list(command), env=self.env, universal_newlines=True)

    @contextlib.contextmanager
    def workers(self, arguments):
        """Starts a process for each contender; arguments: its name -> those of workers.py."""
        with contextlib.ExitStack() as stack:
            command = [self.python, "-I", os.path.join(HERE, "workers.py")]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "universal_newlines": True, "env": self.env}
            processes = {
                name: stack.enter_context(subprocess.Popen(command + list(args), **pipes))
                for name, args in arguments.items()
            }

            def run(name, calls=1):
                """-> seconds for each call, peak memory so far in bytes"""
                processes[name].stdin.write("%d\n" % calls)
                processes[name].stdin.flush()
                seconds, kib = processes[name].stdout.readline().split()
                return float(seconds) / max(calls, 1), int(kib) * 1024

            yield run


# ---- What is measured

# contender: its imports, one call
COLD = {
    OURS: ("from aerostack_lite import SDK", "SDK('key', server_url=%(url)r).cache.cache_get(request={'key': 'k'})"),
    OFFICIAL: ("from aerostack import SDK", "SDK('key', server_url=%(url)r).cache.cache_get(request={'key': 'k'})"),
    "urllib": (
        "import json, urllib.request",
        """
request = urllib.request.Request(%(url)r + '/cache/get', json.dumps({'key': 'k'}).encode(), %(headers)r)
with urllib.request.urlopen(request) as response: json.load(response)['value']""",
    ),
    "http.client": (
        "import http.client, json",
        """
connection = http.client.HTTPConnection(%(host)r)
connection.request('POST', '/v1/cache/get', json.dumps({'key': 'k'}), %(headers)r)
json.load(connection.getresponse())['value']""",
    ),
    START: ("pass", "pass"),
}
REPORT = """
import sys
print(len(sys.modules))
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""
HEADERS = {"Content-Type": "application/json", "X-Aerostack-Key": "key"}


def cold(bench):
    url = bench.urls["http"]
    values = {"url": url, "host": url.split("/")[2], "headers": HEADERS}
    imports = {name: text for name, (text, _) in COLD.items()}
    scripts = {name: text + "\n" + call % values for name, (text, call) in COLD.items()}
    curl = ["curl", "--fail", "--silent", "--data", '{"key":"k"}', url + "/cache/get"]
    curl += ["-H%s: %s" % header for header in HEADERS.items()]

    # Bytecode is kept away from the sources, so that some of it can be missing.
    bytecode = {state: os.path.join(bench.folder, "bytecode", state) for state in ("all", "library", "none")}
    for script in scripts.values():
        bench.output("-X", "pycache_prefix=" + bytecode["all"], "-c", script)
    shutil.copytree(bytecode["all"], bytecode["library"])
    shutil.rmtree(bytecode["library"] + server.site_packages(bench.python))
    os.mkdir(bytecode["none"])

    def process(state, name):
        command = [bench.python, "-I", "-B", "-X", "pycache_prefix=" + bytecode[state], "-c", scripts.get(name)]
        start = time.perf_counter()
        subprocess.run(curl if name == "curl" else command, env=bench.env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    samples = paired(bench.rounds(40), list(scripts) + ["curl"], functools.partial(process, "all"))
    yield Row("cold", samples, milliseconds)
    above = {name: [took - start for took, start in zip(samples[name], samples[START])] for name in scripts}
    del above[START]
    yield Row("cold, above interpreter start", above, milliseconds)
    for state, label in (("library", "cold, own bytecode missing"), ("none", "cold, all bytecode missing")):
        yield Row(label, paired(bench.rounds(20), scripts, functools.partial(process, state)), milliseconds)

    def report(texts):
        options = ("-B", "-X", "pycache_prefix=" + bytecode["all"], "-c")
        told = {name: bench.output(*options, text + "\n" + REPORT).split() for name, text in texts.items()}
        return [{name: [int(figures[i])] for name, figures in told.items()} for i in (0, 1)]

    _, memory_after_import = report(imports)
    modules, memory_after_call = report(scripts)
    yield Row("modules after one call", modules, str, absolute=True)
    for label, memory in (("memory after import", memory_after_import), ("memory after one call", memory_after_call)):
        yield Row(label, memory, lambda kib: megabytes(kib * 1024))


def compare(bench, label, arguments, calls, rounds, show):
    with bench.workers(arguments) as run:
        for name in arguments:
            run(name, calls)
        return Row(label, paired(bench.rounds(rounds), arguments, lambda name: run(name, calls)[0]), show)


def warm(bench):
    names = (OURS, OFFICIAL, "http.client", "urllib", "urllib3", "requests", "httpx")
    for scheme, url in bench.urls.items():
        arguments = {name: ("sync", name, url) for name in names}
        yield compare(bench, "one call, " + scheme, arguments, 100, 40, microseconds)


def many_tasks(bench):
    for count in ("50", "200"):
        names = (OURS, OFFICIAL, "httpx", "aiohttp")
        arguments = {name: ("async", name, bench.urls["http"], count) for name in names}
        yield compare(bench, count + " tasks", arguments, 400, 16, calls_a_second)


def many_threads(bench):
    arguments = {name: ("threads", name, bench.urls["http"], "32") for name in (OURS, "urllib3", "requests", "httpx")}
    arguments[OFFICIAL] = ("async", OFFICIAL, bench.urls["http"], "32")
    yield compare(bench, "32 threads (official: tasks)", arguments, 320, 16, calls_a_second)


def upload(bench):
    mib = 32 if bench.options.quick else 256
    path = os.path.join(bench.folder, "upload.bin")
    with open(path, "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(mib))
    ours_async = OURS + " async"
    names = (OURS, ours_async, OFFICIAL, "curl")
    gib = os.path.join(bench.folder, "gib.bin")
    with open(gib, "wb") as file:
        file.truncate(1024 * MIB)
    for scheme, url in bench.urls.items():
        memory = {}
        with bench.workers({name: ("upload", name, url, gib) for name in names[:3]}) as run:
            for name in names[:3]:
                before = run(name, 0)[1]
                memory[name] = [run(name)[1] - before]
        workers = {name: ("upload", name, url, path) for name in names}
        # New processes for every round, as curl is one each time: how one lies in memory is worth a fifth of its speed.
        # The first upload, after which all is imported and in place, is not measured; of the next three the best is,
        # for over loopback what else the machine does is worth more than what they differ by.
        samples = {name: [] for name in names}
        for number in range(bench.rounds(16)):
            with bench.workers(workers) as run:
                for name in names:
                    run(name)
                for name in random.Random(number).sample(sorted(names), len(names)):
                    samples[name].append(min(run(name)[0] for _ in range(3)))
        for label, ours in (("upload, " + scheme, OURS), ("upload, %s, async" % scheme, ours_async)):
            yield Row(label, samples, lambda seconds: "%.0f MiB/s" % (mib / seconds), ours)
            yield Row(label + ", memory added by 1 GiB", memory, megabytes, ours, absolute=True)


def size(bench):
    measured = os.path.join(server.site_packages(bench.python), os.path.basename(MODULE))
    with open(measured, "rb") as file:
        text = file.read()
    yield Row("lines", {OURS: [text.count(b"\n")]}, str)
    footprint = server.official_footprint(bench.python, bench.folder)
    yield Row("installed, without bytecode", {OURS: [len(text)], OFFICIAL: [footprint]}, megabytes, absolute=True)


MEASURES = {
    "cold": cold,
    "warm": warm,
    "async": many_tasks,
    "threads": many_threads,
    "upload": upload,
    "size": size,
}


# ---- The table


def machine(bench):
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    ask = "import importlib.metadata as m; print(', '.join(n + ' ' + m.version(n) for n in %r))"
    curl = subprocess.check_output(["curl", "--version"], universal_newlines=True)
    return "; ".join(
        (
            datetime.date.today().isoformat(),
            "%s, %d cores, %s %s" % (model, os.cpu_count(), platform.system(), platform.release().partition("-")[0]),
            "CPython %s, %s" % (platform.python_version(), " ".join(ssl.OPENSSL_VERSION.split()[:2])),
            "nginx %s, curl %s" % (server.nginx_version(), curl.split()[1]),
            bench.output("-c", ask % [peer.partition("=")[0] for peer in server.PEERS]).strip() + ".",
        )
    )


def markdown(table):
    rule = ["---"] + ["---:"] * (len(table[0]) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [table[0], rule] + table[1:])


def ratios(rows):
    columns = [name for name in COLUMNS if any(name in row.samples for row in rows)]
    return markdown([[""] + columns] + [[row.label] + [row.cell(name) for name in columns] for row in rows])


def aims(rows):
    table = [["", "peer / ours", "aim", "measured", ""]]
    for row in rows:
        for peer, least in AIMS.get(row.label, {}).items():
            ratio = row.ratio(peer)
            verdict = "met" if round(ratio, 2) >= round(least, 2) else "missed"
            table.append([row.label, peer, "≥ %.2f" % least, "%.2f" % ratio, verdict])
    return markdown(table)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks", description="Ratios, measured in one run.")
    parser.add_argument("--only", metavar="NAMES", default=",".join(MEASURES), help="of %(default)s")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of 16 (upload) to 40 (cold, warm)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds, uploads of 32 MiB")
    parser.add_argument("--venv", metavar="FOLDER", help="where to keep the peers (else a temporary folder)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if set(chosen) - set(MEASURES):
        parser.error("--only takes names of " + ", ".join(MEASURES))

    server.nginx_program()

    with tempfile.TemporaryDirectory() as folder:
        python = server.peers(os.path.abspath(options.venv or os.path.join(folder, "venv")))
        shutil.copy(MODULE, server.site_packages(python))
        rows = []
        with server.nginx(python, folder) as (urls, ca_file):
            bench = Bench(folder, python, urls, ca_file, options)
            for name in chosen:
                print("measuring:", name, file=sys.stderr)
                rows += MEASURES[name](bench)
            print(machine(bench))
    print("\nFirst our own figure, then how many times as long, or as much, the others take; with a unit: as it is.\n")
    print(ratios(rows))
    if any(row.label in AIMS for row in rows):
        print("\n" + aims(rows))


if __name__ == "__main__":
    main()
