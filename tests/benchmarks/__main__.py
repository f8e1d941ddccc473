"""What is measured, what we aim for, and the table."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from . import server

HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "aerostack_lite.py")
README = os.path.join(HERE, "README.md")
MARKS = "<!-- results:begin -->\n", "<!-- results:end -->\n"
OURS, OFFICIAL = "aerostack_lite", "official"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


# ---- What an aim says


class Aim(NamedTuple):
    figure: str
    bound: float
    peer: Optional[str]  # without one, the bound is for our own figure as it stands
    peer_over_ours: bool

    def text(self):
        figure = FIGURES[self.figure]
        if not self.peer:
            return "%s: at most %s" % (figure.title, figure.show(self.bound))
        if self.peer_over_ours:
            return "%s: %s / ours at least %g" % (figure.title, self.peer, self.bound)
        return "%s: ours / %s at most %g" % (figure.title, self.peer, self.bound)

    def result(self, samples, figure):
        if not self.peer:
            return median(samples[OURS], figure)
        times = ratio(samples, self.peer, figure)
        return round(times if self.peer_over_ours else 1 / times, 2)

    def is_met(self, samples):
        result = self.result(samples, self.figure)
        return result >= self.bound if self.peer_over_ours else result <= self.bound

    def show(self, samples, figure):
        result = self.result(samples, figure)
        return "%.2f" % result if self.peer else FIGURES[figure].show(result)


def at_least(bound, peer, figure="cpu"):
    """The peer's figure is at least so many times ours."""
    return Aim(figure, bound, peer, True)


def at_most(bound, peer=None, figure="cpu"):
    """Our figure is at most so many times the peer's, or is at most so large."""
    return Aim(figure, bound, peer, False)


# ---- What a figure is


class Figure(NamedTuple):
    title: str
    show: Callable[[float], str]
    is_time: bool


def seconds(value):
    if value >= 1:
        return "%.2f s" % value
    if value >= 0.001:
        return "%.1f ms" % (value * 1e3)
    return "%.0f µs" % (value * 1e6)


def count(value):
    return "%.1f" % value if value % 1 else "%d" % value


def megabytes(value):
    return "%.1f MB" % (value / 1e6)


FIGURES = {
    "cpu": Figure("CPU", seconds, True),
    "wall": Figure("wall", seconds, True),
    "p99": Figure("p99", seconds, True),
    "hold": Figure("longest hold", seconds, True),
    "peak": Figure("peak memory", megabytes, False),
    "added": Figure("memory added", megabytes, False),
    "system calls": Figure("system calls", count, False),
    "unanswered": Figure("unanswered", count, False),
}


def median(samples, figure):
    return statistics.median(sample[figure] for sample in samples)


def ratio(samples, peer, figure):
    """How many times ours the peer's figure is: the median over the rounds of the ratio within the round."""
    pairs = zip(samples[peer], samples[OURS])
    return statistics.median(theirs[figure] / max(ours[figure], 1e-9) for theirs, ours in pairs)


# ---- How a row is measured: measure(bench, row) -> {contender: one sample a round}


def paired(bench, row):
    """A process for each contender; in every round each makes its calls, in another order each time."""
    with contextlib.ExitStack() as stack:
        runs = {name: stack.enter_context(bench.worker(row, name)) for name in row.contenders}
        for run in runs.values():
            run(row.calls)
        return rounds(bench, row, lambda name: runs[name](row.calls))


def fresh(bench, row):
    """A new process for every sample: for what it does once, and for how its memory grows."""

    def measure(name):
        with bench.worker(row, name) as run:
            return run(row.calls)

    return rounds(bench, row, measure)


def rounds(bench, row, measure):
    samples = {name: [] for name in row.contenders}
    for number in range(bench.rounds(row)):
        for name in random.Random(number).sample(sorted(samples), len(samples)):  # nobody has always the same before it
            try:
                samples[name].append(measure(name))
            except (OSError, ValueError):  # its process has ended, and has said why
                if name == OURS:
                    raise
                del samples[name]
    return samples


def traced(bench, row):
    """strace counts the system calls of few calls and of many: the difference belongs to the calls."""

    def total(name, calls):
        counts = os.path.join(bench.folder, "strace.txt")
        with bench.worker(row, name, ["strace", "-f", "-c", "-o", counts]) as run:
            run(10)
            run(calls)
        with open(counts) as file:
            return int(file.read().splitlines()[-1].split()[3])

    def measure(name):
        return {"system calls": (total(name, 10 + row.calls) - total(name, 10)) / row.calls}

    try:
        subprocess.run(["strace", "-c", "true"], check=True, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise Skipped("strace is not installed") from None
    except subprocess.CalledProcessError as error:
        raise Skipped("strace may not trace: %s" % error.stderr.decode().strip().splitlines()[-1]) from None
    return rounds(bench, row, measure)


class Skipped(Exception):
    """A row cannot be measured here; the text says why."""


# ---- The rows


class Row(NamedTuple):
    name: str
    work: str  # of workers.py
    contenders: Dict[str, Any]  # its name: the argument of its work
    aims: List[Aim]
    url: str = "/v1"
    scheme: str = "http"
    calls: int = 1  # in a round, of each contender
    rounds: int = 20
    figures: Any = ("cpu", "wall")
    measure: Callable = paired
    pinned: bool = True  # the client, to one core; what has threads may use every core, as it does in life


def among(*names, **options):
    return dict.fromkeys((OURS, OFFICIAL) + names, options.get("argument", ""))


WARM = among("http.client", "urllib.request", "urllib3", "requests", "httpx")
SCHEMES = ("http", "https")
ROWS = [
    Row(
        "cold call, https",
        "cold",
        among("urllib.request", "urllib3", "httpx", "requests"),
        [at_least(3.8, OFFICIAL), at_most(1.15, "urllib.request")]
        + [at_most(1, peer) for peer in ("urllib3", "httpx", "requests")],
        scheme="https",
        rounds=40,
    ),
    *[
        Row(
            "warm call, " + scheme,
            "cache_set",
            WARM,
            [at_most(1, "http.client"), at_least(10, OFFICIAL)],
            scheme=scheme,
            calls=100,
            rounds=40,
        )
        for scheme in SCHEMES
    ],
    Row(
        "warm call, system calls",
        "cache_set",
        WARM,
        [at_most(6, figure="system calls")],
        url="/slow",
        calls=100,
        rounds=1,
        figures=["system calls"],
        measure=traced,
    ),
    *[
        Row(
            "db_query, %s rows" % rows,
            "db_query",
            among("json.loads"),
            [at_least(times, OFFICIAL)] + [at_most(1.5, "json.loads")] * (rows != "10"),
            url="/rows/" + rows,
            calls=calls,
        )
        for rows, times, calls in (("10", 10, 50), ("1k", 1.5, 20), ("100k", 0.95, 1))
    ],
    Row(
        "db_query, 100k rows, memory",
        "db_query",
        among(),
        [at_most(0.6, OFFICIAL, "peak")],
        url="/rows/100k",
        rounds=5,
        figures=["peak", "added"],
        measure=fresh,
    ),
    *[
        Row(
            "cache_set of 10 MB" + ', keys named "null"' * (key == "null"),
            "cache_set of 10 MB",
            among(argument=key),
            [at_least(1.7, OFFICIAL)],
            url="/sink",
            rounds=12,
        )
        for key in ("nothing", "null")
    ],
    Row(
        "event loop beside an answer of 20 MB",
        "db_query beside a clock",
        among(),
        [at_most(1, OFFICIAL, "hold")],
        url="/rows/20MB",
        rounds=10,
        figures=["hold", "cpu", "wall"],
        pinned=False,
    ),
    Row(
        "50 tasks",
        "cache_set from tasks",
        among("aiohttp", "httpx", argument=50),
        [at_least(10, OFFICIAL), at_least(12, OFFICIAL, "wall"), at_most(2.5, "aiohttp")],
        calls=400,
        rounds=12,
        figures=["cpu", "wall", "p99"],
        pinned=False,
    ),
    Row(
        "1,000 tasks (official: 50)",
        "cache_set from tasks",
        {OURS: 1000, OFFICIAL: 50, "aiohttp": 1000},
        [at_most(0, figure="unanswered"), at_most(0.2, OFFICIAL, "p99")],
        calls=1000,
        rounds=8,
        figures=["unanswered", "p99", "cpu", "wall"],
        pinned=False,
    ),
    *[
        Row(
            "%d threads" % threads,
            "cache_set from threads",
            among("urllib3", "requests", "httpx", argument=threads),
            [at_most(0.9, "urllib3", "p99"), at_least(1.4, "urllib3")],
            calls=640,
            rounds=12,
            figures=["cpu", "wall", "p99"],
            pinned=False,
        )
        for threads in (32, 64)
    ],
    *[
        Row(
            "upload of 1 GiB, " + scheme,
            "upload",
            among("curl", argument="{folder}/upload.bin"),
            [at_least(0.95, "curl"), at_least(0.95, "curl", "wall"), at_most(2e6, figure="added")],
            url="/sink",
            scheme=scheme,
            rounds=10,
            figures=["cpu", "wall", "added"],
            measure=fresh,
        )
        for scheme in SCHEMES
    ],
]


# ---- What the rows share


class Bench:
    """The peers' Python, its environment, the server, how long we have."""

    def __init__(self, folder, python, urls, ca_file, options):
        self.folder, self.python, self.urls, self.options = folder, python, urls, options
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env.update(SSL_CERT_FILE=ca_file, REQUESTS_CA_BUNDLE=ca_file, CURL_CA_BUNDLE=ca_file)

    def rounds(self, row):
        return self.options.rounds or (max(2, row.rounds // 8) if self.options.quick else row.rounds)

    @contextlib.contextmanager
    def worker(self, row, name, prefix=()):
        """Starts the process of a contender."""
        argument = str(row.contenders[name]).format(folder=self.folder)
        command = [self.python, "-I", os.path.join(HERE, "workers.py"), row.work, name]
        with subprocess.Popen(
            list(prefix) + command + [self.urls[row.scheme] + row.url, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        ) as process:
            os.sched_setaffinity(process.pid, CORES[:1] if row.pinned else CORES)

            def run(calls):
                process.stdin.write("%d\n" % calls)
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield run

    def measure(self, row):
        """Every contender's samples, or why there are none."""
        start = time.monotonic()
        try:
            return row.measure(self, row)
        except Skipped as reason:
            return reason
        finally:
            print("%3d s: %s" % (time.monotonic() - start, row.name), file=sys.stderr)


# ---- The tables


def machine(bench, load):
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    ask = "import importlib.metadata as m; print(', '.join(n + ' ' + m.version(n) for n in %r))"
    names = [peer.partition("=")[0] for peer in server.PEERS]
    peers = subprocess.check_output([bench.python, "-I", "-c", ask % names], text=True).strip()
    curl = subprocess.check_output(["curl", "--version"], text=True).split()[1]
    facts = (
        datetime.date.today().isoformat(),
        "%s, %d cores, load %.1f before the run" % (model, len(CORES), load),
        "%s %s" % (platform.system(), platform.release().partition("-")[0]),
        "CPython %s, %s" % (platform.python_version(), " ".join(ssl.OPENSSL_VERSION.split()[:2])),
        "nginx %s, curl %s" % (server.nginx_version(), curl),
        peers,
    )
    return "; ".join(facts) + "."


def markdown(table):
    rule = ["---"] * len(table[0])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [table[0], rule] + table[1:])


def aims(measured):
    table = [["row", "aim", "result", "by wall", ""]]
    for row, samples in measured:
        for aim in row.aims:
            if isinstance(samples, Skipped):
                table.append([row.name, aim.text(), "", "", "skipped: %s" % samples])
                continue
            if aim.peer and aim.peer not in samples:
                table.append([row.name, aim.text(), "", "", "%s failed" % aim.peer])
                continue
            wall = aim.show(samples, "wall") if aim.figure == "cpu" else ""
            verdict = "met" if aim.is_met(samples) else "missed"
            table.append([row.name, aim.text(), aim.show(samples, aim.figure), wall, verdict])
    return markdown(table)


def everything(measured):
    table = [["row", "figure", OURS, "the others"]]
    for row, samples in measured:
        if not isinstance(samples, Skipped):
            table += [[row.name] + figure_cells(samples, figure) for figure in row.figures]
    return markdown(table)


def figure_cells(samples, name):
    figure, others = FIGURES[name], []
    for peer in samples:
        if figure.is_time and peer != OURS:
            others.append("%s %.2f" % (peer, ratio(samples, peer, name)))
        elif name in samples[peer][0] and peer != OURS:
            others.append("%s %s" % (peer, figure.show(median(samples[peer], name))))
    return [figure.title, figure.show(median(samples[OURS], name)), ", ".join(others)]


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks", description="Ratios, measured in one run.")
    parser.add_argument("--only", metavar="TEXT", nargs="+", help="the rows whose names have one of these in them")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of every row")
    parser.add_argument("--quick", action="store_true", help="an eighth of the rounds, uploads of 64 MiB")
    parser.add_argument("--venv", metavar="FOLDER", help="where to keep the peers (else a temporary folder)")
    options = parser.parse_args()
    chosen = [row for row in ROWS if any(text in row.name for text in options.only or [""])]
    if not chosen:
        parser.error("--only takes parts of: " + "; ".join(row.name for row in ROWS))
    if not CORES:
        sys.exit("this system cannot pin a process to a core: Linux is needed")

    load = os.getloadavg()[0]
    server.nginx_program()
    with tempfile.TemporaryDirectory() as folder:
        python = server.peers(os.path.abspath(options.venv or os.path.join(folder, "venv")))
        server.install(python, MODULE)
        os.sched_setaffinity(0, CORES[-1:])  # this program, which sleeps while others work, and the server
        for name, size in (("upload.bin", 1 << 26 if options.quick else 1 << 30), ("upload.bin.empty", 0)):
            with open(os.path.join(folder, name), "wb") as file:
                file.truncate(size)
        with server.nginx(python, folder) as (urls, ca_file):
            bench = Bench(folder, python, urls, ca_file, options)
            measured = [(row, bench.measure(row)) for row in chosen]
            text = "\n\n".join([machine(bench, load), aims(measured), everything(measured)]) + "\n"
    print(text)
    if not (options.only or options.quick or options.rounds):
        write(text)


def write(text):
    """Puts the tables where the last ones stand."""
    with open(README, encoding="utf-8") as file:
        before, rest = file.read().split(MARKS[0])
    with open(README, "w", encoding="utf-8") as file:
        file.write(before + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])


if __name__ == "__main__":
    main()
