"""flit_core, and two things that the repository keeps only inside the module and a package keeps beside it:

the licence, which heads the module    -> LICENSE in the sdist and in the wheel's metadata
the types, which the module declares   -> the stub-only package aerostack_lite-stubs in the wheel, since a module
                                          that is one file cannot carry the marker py.typed (PEP 561)

The stubs are the module itself under another name, since checkers do not look into the functions of a stub. Each of its
classes that stands for a module gets a stub of its own, for `from aerostack_lite.utils import RetryConfig`.
"""

import ast
import base64
import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile

MODULE = "aerostack_lite.py"
STUBS = "aerostack_lite-stubs/"


def licence(source):
    """The comment at the top of the module, as a text of its own."""
    lines = [line[1:].strip() for line in source[: source.index('"""')].splitlines()]
    return "MIT License\n\n" + "".join(line + "\n" for line in lines if not line.startswith("SPDX-"))


def digest(data):
    """As a wheel's RECORD has it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def stubs(source):
    """The module's source -> {file name: text} of the stub-only package."""
    body = ast.parse(source).body
    outside = _names(body)
    modules = [node for node in body if isinstance(node, ast.ClassDef) and node.name.islower()]
    return dict({"__init__.pyi": source}, **{node.name + ".pyi": _submodule(node, outside) for node in modules})


def _submodule(node, outside):
    lines = ["from . import %s as _%s" % (node.name, node.name)]
    inside = [statement for statement in node.body if not isinstance(statement, ast.ClassDef)]
    for name in _names(node.body):
        if name in outside and name in _names(inside):  # a name of the module's own, repeated in the class
            lines.append("from . import %s as %s" % (name, name))
        elif not name.startswith("_"):
            lines.append("%s = _%s.%s" % (name, node.name, name))
    return "\n".join(lines) + "\n"


def _names(statements):
    """What these statements define, in their order."""
    names = []
    for statement in statements:
        if isinstance(statement, ast.If):
            names += _names(statement.body)
        elif isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            names.append(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [target.id for outer in targets for target in ast.walk(outer) if isinstance(target, ast.Name)]
    return names


# ---- What an installer calls (PEP 517, PEP 660) ----------------------------------------------------------------------


def get_requires_for_build_wheel(config_settings=None):
    return []


def get_requires_for_build_sdist(config_settings=None):
    return []


def get_requires_for_build_editable(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    with _tree_with_licence() as flit:
        return flit.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_sdist(sdist_directory, config_settings=None):
    sdist_directory = os.path.abspath(sdist_directory)
    with _tree_with_licence() as flit:
        return flit.build_sdist(sdist_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    wheel_directory = os.path.abspath(wheel_directory)
    with _tree_with_licence() as flit:
        name = flit.build_wheel(wheel_directory, config_settings, metadata_directory)
    files = stubs(_read(MODULE))
    _add_to_wheel(os.path.join(wheel_directory, name), {STUBS + name: files[name].encode() for name in sorted(files)})
    return name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    import flit_core.buildapi

    return flit_core.buildapi.build_editable(wheel_directory, config_settings, metadata_directory)


@contextlib.contextmanager
def _tree_with_licence():
    """flit_core's hooks, in a copy of what they read."""
    import flit_core.buildapi

    here = os.getcwd()
    with tempfile.TemporaryDirectory() as tree:
        os.mkdir(os.path.join(tree, ".ci"))
        for name in ("pyproject.toml", "README.md", MODULE, ".ci/build_backend.py"):
            shutil.copy2(name, os.path.join(tree, name))
        with open(os.path.join(tree, "LICENSE"), "w", encoding="utf-8", newline="\n") as file:
            file.write(licence(_read(MODULE)))
        shutil.copystat(MODULE, file.name)  # its date goes into the archive: the same source, the same bytes
        os.chdir(tree)
        try:
            yield flit_core.buildapi
        finally:
            os.chdir(here)


def _add_to_wheel(path, files):
    with zipfile.ZipFile(path) as wheel:
        entries = [(info, wheel.read(info)) for info in wheel.infolist()]
    *entries, (record_info, record) = entries  # RECORD comes last
    pattern = entries[0][0]
    for name, data in files.items():
        info = zipfile.ZipInfo(name, pattern.date_time)
        info.external_attr, info.compress_type = pattern.external_attr, pattern.compress_type
        entries.append((info, data))
        record = ("%s,%s,%d\n" % (name, digest(data), len(data))).encode() + record
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for info, data in entries + [(record_info, record)]:
            wheel.writestr(info, data)


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()
