"""How fast, beside whom: ratios measured in one run, never asserted.

    python3 -m tests.benchmarks                     everything; six minutes on two cores
    python3 -m tests.benchmarks --quick             fewer rounds, smaller uploads; some two minutes
    python3 -m tests.benchmarks --only warm,async   cold, warm, async, threads, upload, size
    python3 -m tests.benchmarks --rounds 5
    python3 -m tests.benchmarks --venv ~/.cache/aerostack-benchmarks     keep the peers for the next run

Wants Python 3.10 or newer, Linux, nginx and curl (`apt-get install nginx-light curl`); the other peers are installed
into a virtual environment of the run's own. The server is nginx on 127.0.0.1, which answers with fixed JSON: what is
left is the client. Prints Markdown: a table of ratios, and how they stand to what we aim for.

Every contender runs in a process of its own. In each round all of them run, one straight after the other, and the
ratio is taken within the round; the table shows the median over the rounds. So a noisy neighbour disturbs a few rounds
and not the result.

    __main__.py     what is measured, the aims, the table
    workers.py      the contenders: the same work, each library's own way
    server.py       nginx and the virtual environment
"""
