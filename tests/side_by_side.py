"""Tests that wait, for time or for other programs, run side by side: the first of their class runs them all."""

import copy
import functools
import unittest
from concurrent.futures import ThreadPoolExecutor


def side_by_side(threads, one_setup=False):
    """Decorate a TestCase: its tests run in so many threads. None may change what the others see.

    With `one_setup`, setUp is done once for all of them: it changes what all threads share, as the environment."""

    def decorate(kind):
        for name in unittest.defaultTestLoader.getTestCaseNames(kind):
            setattr(kind, name, _told_by_the_first(getattr(kind, name), threads, one_setup))
        return kind

    return decorate


def _told_by_the_first(test, threads, one_setup):
    @functools.wraps(test)
    def tell(self):
        kind = type(self)
        if getattr(self, "beside_others", False):
            return test(self)
        if "results" not in vars(kind):
            kind.results = _run_all(self, threads, one_setup)
        result = kind.results[self._testMethodName]
        if not result.wasSuccessful():
            self.fail("\n".join(traceback for _, traceback in result.errors + result.failures))
        for _, reason in result.skipped:
            self.skipTest(reason)
        return None

    return tell


def _run_all(first, threads, one_setup):
    results, runs = {}, []
    with ThreadPoolExecutor(threads) as pool:
        for name in unittest.defaultTestLoader.getTestCaseNames(type(first)):
            case = type(first)(name)
            if one_setup:
                case = copy.copy(first)
                case._testMethodName, case._cleanups = name, []
                case.setUp = case.tearDown = _nothing
            case.beside_others = True
            results[name] = unittest.TestResult()
            runs.append(pool.submit(case.run, results[name]))
    for run in runs:
        run.result()
    return results


def _nothing():
    pass
