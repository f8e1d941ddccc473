"""`python3 -m tests.parity`: run the suite and say how much it compared."""

import os
import sys
import unittest

from tests.parity.beside import COUNT


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    suite = unittest.defaultTestLoader.discover(here, top_level_dir=os.path.dirname(os.path.dirname(here)))
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    print("parity: %(cases)d cases, %(differences)d intended differences" % COUNT, flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
