"""README.md is what `python3 -m tests.parity` writes."""

import re
import unittest

from tests.parity.table import MATTERS, page, read_page


class ThePage(unittest.TestCase):
    def test_is_what_the_program_writes(self):
        cases, checks = re.search(r"(\d+) cases were the same, and (\d+)\s", read_page()).groups()
        self.assertEqual(read_page(), page(int(cases), int(checks)))

    def test_names_each_difference_once(self):
        self.assertEqual(sorted(MATTERS), sorted(set(MATTERS)))


if __name__ == "__main__":
    unittest.main()
