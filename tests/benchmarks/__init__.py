"""How fast, beside whom: measured in one run, never asserted. README.md says how, and holds the last full run's tables.

python3 -m tests.benchmarks                         everything, and writes README.md; a quarter of an hour at most
python3 -m tests.benchmarks --quick                 an eighth of the rounds, uploads of 64 MiB; writes nothing
python3 -m tests.benchmarks --only warm "50 tasks"  the rows whose names have one of these in them; writes nothing
python3 -m tests.benchmarks --rounds 5              so many rounds of every row; writes nothing
python3 -m tests.benchmarks --venv FOLDER           keeps the peers for the next run

__main__.py     the rows with their contenders and aims, how they are measured, the tables
workers.py      the contenders: the same work, each library's own way
server.py       nginx and the virtual environment
"""
