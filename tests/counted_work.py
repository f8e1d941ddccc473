"""A copy of the module that counts what it does, in steps that are the same on every machine.

    ... COUNTED.SDK(...) ...            # the module again, under another name
    count_steps(lambda: sdk.cache.cache_get(key="k"))

A turn of a loop is one step, and so is a call. A call of something built in, a slice, a sum, a search and a formatting
take besides a step for each character or byte that they go through. What the standard library does within one call is
not seen, but what goes in and comes out.
"""

import ast
import importlib.util
import re
import sys

import aerostack_lite

TEXTS = (str, bytes, bytearray)
ASK_ONLY = (len, isinstance, type, id, bool, callable, getattr, hasattr, setattr, iter, next, memoryview)
NAMES_OF_THE_CALLER = ("super", "locals", "globals", "vars", "dir")  # a call in between would change what they mean
GO_THROUGH = (list, tuple, dict, set, frozenset, sorted, sum, min, max, any, all)
PATTERN = type(re.compile(""))


class Counter:
    """What the changed source calls."""

    def __init__(self, name):
        self.name = name
        self.steps = None  # None while nobody counts

    def add(self, steps):
        if self.steps is not None:
            self.steps += steps

    def turn(self):
        self.add(1)

    def value(self, value):
        """A value that is made, or gone through from its start to its end."""
        self.add(size(value, (list, tuple)))
        return value

    def added(self, target, value):
        """What is added to a target, which is copied if it cannot grow where it is."""
        self.add(size(value) + (size(target) if isinstance(target, (str, bytes)) else 0))
        return value

    def function(self, function):
        """A function about to be called: our own counts for itself, any other is counted from outside."""
        if self.steps is None or function in ASK_ONLY:
            return function
        self.add(1)
        if getattr(function, "__module__", None) == self.name:
            return function

        def counted(*arguments, **options):
            result = function(*arguments, **options)
            self.add(size_of_call(function, arguments, result))
            return result

        return counted


def size(value, others=()):
    return len(value) if isinstance(value, TEXTS + others) else 0


def size_of_call(function, arguments, result):
    """How many characters a call goes through: its object's, its arguments' and its result's."""
    on = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if name in ("startswith", "endswith", "append", "extend"):
        return size(arguments[0])
    if name in ("find", "index") and isinstance(on, TEXTS):
        start, end = (arguments[1:] + (0, len(on))[len(arguments) - 1 :])[:2]
        return max(0, (min(end, len(on)) if result < 0 else result) - start)
    if name in ("match", "fullmatch", "search") and isinstance(on, PATTERN):
        start = arguments[1] if len(arguments) > 1 else 0
        if result:
            return result.end() - start
        return len(arguments[0]) - start if name == "search" else 1
    if name == "replace" and sys.version_info < (3, 10):
        # A long text is compared anew, as far as it fits, wherever its end is found (bpo-41972).
        return max(0, len(on) - len(arguments[0])) * max(1, len(arguments[0]) // 64) + size(result)
    others = (list, tuple, dict, set) if function in GO_THROUGH else ()
    return size(on) + sum(size(argument, others) for argument in arguments) + size(result)


class Transformer(ast.NodeTransformer):
    """Source that does the same and tells the counter."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id in NAMES_OF_THE_CALLER):
            node.func = tell("function", node.func)
        return node

    def visit_Subscript(self, node):
        self.generic_visit(node)
        is_slice = isinstance(node.slice, ast.Slice) and isinstance(node.ctx, ast.Load)
        return tell("value", node) if is_slice else node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        return tell("value", node)

    def visit_JoinedStr(self, node):
        self.generic_visit(node)
        return tell("value", node)

    def visit_FormattedValue(self, node):
        node.value = self.visit(node.value)  # a format within must stay what it is
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        pairs = zip(node.ops, node.comparators)
        node.comparators = [tell("value", b) if isinstance(op, (ast.In, ast.NotIn)) else b for op, b in pairs]
        return node

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Add) and not isinstance(node.target, ast.Subscript):
            target = ast.parse(unparse(node.target), mode="eval").body
            node.value = tell("added", target, node.value)
        return node

    def visit_comprehension(self, node):
        self.generic_visit(node)
        node.iter = tell("value", node.iter)
        return node

    def visit_For(self, node):
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(tell("turn")))
        return node

    visit_While = visit_For


def unparse(target):
    """The source of a name, or of names with dots between them."""
    return target.id if isinstance(target, ast.Name) else "%s.%s" % (unparse(target.value), target.attr)


def tell(method, *arguments):
    function = ast.Attribute(ast.Name("_work_counter", ast.Load()), method, ast.Load())
    return ast.Call(function, list(arguments), [])


def counted_module(source, name):
    """A module that runs a changed copy of the source -> the module, its counter."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, None))
    module._work_counter = Counter(name)
    sys.modules[name] = module
    tree = ast.fix_missing_locations(Transformer().visit(ast.parse(source)))
    exec(compile(tree, name, "exec"), module.__dict__)
    return module, module._work_counter


with open(aerostack_lite.__file__, encoding="utf-8") as file:
    COUNTED, COUNTER = counted_module(file.read(), "aerostack_lite_counted")


def count_steps(call, counter=COUNTER):
    """How many steps a call takes, whether it succeeds or raises an error of the module's."""
    counter.steps = 0
    try:
        call()
    except COUNTED.AerostackError:
        pass
    finally:
        steps, counter.steps = counter.steps, None
    return steps
