"""`python3 -m tests.parity`: compare everything, say how much it was, and write it into README.md."""

import sys
import unittest

from tests import parity
from tests.parity.table import COUNT, MATTERS, PAGE, SEEN, page


def main():
    suite = parity.files(unittest.defaultTestLoader, "test_parity_*.py")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    checks = sum(SEEN.values())
    print("parity: %d cases, %d checks of %d intended differences" % (COUNT["cases"], checks, len(MATTERS)))
    unseen = [matter for matter in MATTERS if not SEEN[matter]]
    if unseen:
        print("never seen: " + "; ".join(unseen))
    if result.wasSuccessful() and not result.skipped and not unseen:
        with open(PAGE, "w", encoding="utf-8", newline="\n") as file:
            file.write(page(COUNT["cases"], checks))
        print("written: " + PAGE)
    else:
        print("not written: " + PAGE)
    return 0 if result.wasSuccessful() and not unseen else 1


if __name__ == "__main__":
    sys.exit(main())
