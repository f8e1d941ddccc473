"""What we send, read by the parsers of real servers, and through nginx. A test skips where its parser is missing.

pip install werkzeug Django starlette python-multipart aiohttp tornado aerostack==0.1.2
npm install --prefix SOME_FOLDER busboy formidable
NODE_PATH=SOME_FOLDER/node_modules python3 -m unittest tests.peers.test_multipart_parsers
"""

import asyncio
import email
import hashlib
import importlib
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from aerostack_lite import SDK, errors
from tests.upload_case import PATIENCE_SECONDS, Server

MIB = 1024 * 1024
EVERY_BYTE = bytes(range(256)) * 64 + b"\r\n--\r\n\n\r--"

NAMES = [
    "plain.txt",
    "two words.txt",
    'say "hi".txt',
    "back\\slash.txt",
    '\\"',
    "C:\\folder\\file.txt",
    "cr\rlf\n.txt",
    "tab\t.txt",
    "100%25.txt",
    "a;b=c.txt",
    "a'b,c.txt",
    "folder/file.txt",
    "../up.txt",
    "caf\u00e9.txt",
    "\U0001f600.txt",
    "\u202eabc\u05d0\u05d1.txt",
    " blank ",
]
KEYS = [
    "a/b.txt",
    "",
    " ",
    'quote"s',
    "back\\slash",
    "cr\r\nlf",
    "50%25;x=y",
    "caf\u00e9 \U0001f600",
    "\u202eabc\u05d0\u05d1",
    "--\r\n--",
]
TYPES = [
    "text/plain",
    "text/plain; charset=utf-8",
    'image/png; name="a;b\\"c"',
    "application/vnd.x+json;v=1",
    "TEXT/Html",
    "x/y;z",
    "nonsense",
]

# What to send: (key, contentType or None, file name, type or None, content)
UPLOADS = (
    [("k", None, "plain.bin", None, EVERY_BYTE), ("k", None, "empty.bin", None, b"")]
    + [("k", None, name, "text/plain", EVERY_BYTE) for name in NAMES]
    + [(key, None, "f.txt", "text/plain", b"x") for key in KEYS]
    + [("k", media_type, "f.txt", media_type, b"\r\n") for media_type in TYPES]
)

# Some parser refuses or drops each of these, whoever sends it; ours must fare as the official SDK's does.
CONTENTIOUS = [
    ("k", None, name, "text/plain", b"x")
    for name in ("escape\x1b.txt", "delete\x7f.txt", "trailing\\", ".", "..", "folder/")
] + [("k", None, "f.txt", media_type, b"x") for media_type in ("", "multipart/mixed; boundary=zzz")]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise unittest.SkipTest(name.partition(".")[0] + " is not installed") from None


# ---- The parsers: content type, body -> [{name, fileName, type, value | sha256}, ...]


def with_werkzeug(content_type, body):
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    _, fields, files = module("werkzeug.formparser").parse_form_data(environ, silent=False)
    parts = [{"name": name, "value": value} for name, value in fields.items(multi=True)]
    for name, file in files.items(multi=True):
        with file.stream as stream:
            parts.append(
                {"name": name, "fileName": file.filename, "type": file.content_type, "sha256": sha256(stream.read())}
            )
    return parts


def with_django(content_type, body):
    settings = module("django.conf").settings
    if not settings.configured:
        settings.configure(DATA_UPLOAD_MAX_MEMORY_SIZE=None)
    handler = module("django.core.files.uploadhandler").TemporaryFileUploadHandler()
    meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body))}
    fields, files = module("django.http.multipartparser").MultiPartParser(meta, io.BytesIO(body), [handler]).parse()
    parts = [{"name": name, "value": value} for name, values in fields.lists() for value in values]
    for name, values in files.lists():
        for file in values:
            with file:
                parts.append(
                    {"name": name, "fileName": file.name, "type": file.content_type, "sha256": sha256(file.read())}
                )
    return parts


def with_starlette(content_type, body):
    headers = module("starlette.datastructures").Headers({"content-type": content_type})
    module("python_multipart")

    async def parse():
        async def stream():
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        form = await module("starlette.formparsers").MultiPartParser(headers, stream()).parse()
        parts = []
        for name, value in form.multi_items():
            if isinstance(value, str):
                parts.append({"name": name, "value": value})
            else:
                parts.append(
                    {
                        "name": name,
                        "fileName": value.filename,
                        "type": value.content_type,
                        "sha256": sha256(await value.read()),
                    }
                )
        await form.close()
        return parts

    return asyncio.run(parse())


def with_aiohttp(content_type, body):
    streams, utilities = module("aiohttp.streams"), module("aiohttp.test_utils")

    async def parse():
        loop = asyncio.get_running_loop()
        payload = streams.StreamReader(module("aiohttp.base_protocol").BaseProtocol(loop), 2**40, loop=loop)
        payload.feed_data(body)
        payload.feed_eof()
        request = utilities.make_mocked_request(
            "POST", "/", headers={"Content-Type": content_type}, payload=payload, client_max_size=2**40
        )
        parts = []
        for name, value in (await request.post()).items():
            if isinstance(value, str):
                parts.append({"name": name, "value": value})
            else:
                with value.file as file:
                    parts.append(
                        {
                            "name": name,
                            "fileName": value.filename,
                            "type": value.content_type,
                            "sha256": sha256(file.read()),
                        }
                    )
        return parts

    return asyncio.run(parse())


def with_tornado(content_type, body):
    fields, files = {}, {}
    module("tornado.httputil").parse_multipart_form_data(
        content_type.partition("boundary=")[2].encode(), body, fields, files
    )
    return [{"name": name, "value": value.decode()} for name, values in fields.items() for value in values] + [
        {"name": name, "fileName": file["filename"], "type": file["content_type"], "sha256": sha256(file["body"])}
        for name, several in files.items()
        for file in several
    ]


def with_email(content_type, body):
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    parts = []
    for part in message.get_payload():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if part.get_filename() is None:
            parts.append({"name": name, "value": content.decode()})
        else:
            parts.append(
                {
                    "name": name,
                    "fileName": str(part.get_filename()),
                    "type": part.get_content_type(),
                    "sha256": sha256(content),
                }
            )
    return parts


def each(parse):
    """[(content type, body), ...] -> what `parse` makes of each: its parts, or the name of its exception."""

    def parse_all(bodies):
        results = []
        for content_type, body in bodies:
            try:
                results.append(parse(content_type, body))
            except unittest.SkipTest:
                raise
            except Exception as error:
                results.append(type(error).__name__)
        return results

    return parse_all


def with_node(parser):
    def parse_all(bodies):
        if not shutil.which("node"):
            raise unittest.SkipTest("node is not installed")
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, (_, body) in enumerate(bodies):
                paths.append(os.path.join(folder, str(number)))
                pathlib.Path(paths[-1]).write_bytes(body)
            script = str(pathlib.Path(__file__).with_name("parse_multipart.js"))
            done = subprocess.run(
                ["node", script, parser],
                env=dict(os.environ, UPLOADS=folder),
                capture_output=True,
                input=json.dumps([(content_type, path) for (content_type, _), path in zip(bodies, paths)]).encode(),
            )
        if b"Cannot find module '%s'" % parser.encode() in done.stderr:
            raise unittest.SkipTest(parser + " is not on NODE_PATH")
        if done.returncode:
            raise AssertionError(done.stderr.decode())
        return json.loads(done.stdout.decode())

    return parse_all


PARSERS = {
    "werkzeug": each(with_werkzeug),
    "Django": each(with_django),
    "Starlette": each(with_starlette),
    "aiohttp": each(with_aiohttp),
    "Tornado": each(with_tornado),
    "email": each(with_email),
    "busboy": with_node("busboy"),
    "formidable": with_node("formidable"),
    "fetch": with_node("fetch"),
}


# ---- What goes over the wire


def sent_by(sdk_class, uploads, make=lambda content: content):
    """The (content type, body) of each upload as the server read it off the socket."""
    with Server() as server, sdk_class("key", server_url=server.url) as sdk:
        for key, field, name, content_type, content in uploads:
            file = {"file_name": name, "content": make(content)}
            if content_type is not None:
                file["content_type"] = content_type
            request = {"key": key, "file": file}
            if field is not None:
                request["content_type"] = field
            sdk.storage.storage_upload(request=request)
        return [(received.header("content-type"), bytes(received.body)) for received in server.received]


def in_pieces(content):
    return (content[start : start + 1000] for start in range(0, len(content), 1000))


class Parsers(unittest.TestCase):
    """One test per parser, made below."""

    @classmethod
    def setUpClass(cls):
        cls.ours = sent_by(SDK, UPLOADS + CONTENTIOUS)
        cls.chunked = sent_by(SDK, UPLOADS[:2], in_pieces)
        cls.large = [("k", None, "large.bin", None, bytes(range(256)) * (40 * MIB // 256))]
        cls.large_sent = sent_by(SDK, cls.large, io.BytesIO)
        try:
            cls.official = sent_by(importlib.import_module("aerostack").SDK, UPLOADS + CONTENTIOUS)
        except ImportError:
            cls.official = None

    def check(self, parse_all):
        large_sent = self.large_sent if parse_all is not PARSERS["email"] else []  # which would take seconds
        for sent, uploads in ((self.ours, UPLOADS), (self.chunked, UPLOADS), (large_sent, self.large)):
            for upload, parts in zip(uploads, parse_all(sent)):
                self.check_one(upload, parts)
        if self.official is None:
            self.skipTest("aerostack is not installed: the file names were not compared")
        for upload, ours, theirs in zip(UPLOADS + CONTENTIOUS, parse_all(self.ours), parse_all(self.official)):
            with self.subTest(upload=upload[:4]):
                self.assertEqual(ours, theirs)

    def check_one(self, upload, parts):
        key, field, name, content_type, content = upload
        with self.subTest(upload=upload[:4]):
            self.assertIsInstance(parts, list)
            fields = {part["name"]: part["value"] for part in parts if "value" in part}
            self.assertEqual(fields, {"key": key} if field is None else {"key": key, "contentType": field})
            files = [part for part in parts if "value" not in part]
            self.assertEqual([file["name"] for file in files], ["file"])
            self.assertEqual(files[0]["sha256"], sha256(content))
            if name == "plain.txt":
                self.assertEqual((files[0]["fileName"], files[0]["type"]), (name, content_type))


def parser_test(name, parse_all):
    def test(self):
        self.check(parse_all)

    test.__name__ = "test_%s_reads_what_it_reads_from_the_official_sdk" % name.lower()
    return test


for _name, _parse_all in PARSERS.items():
    _test = parser_test(_name, _parse_all)
    setattr(Parsers, _test.__name__, _test)


# ---- Through nginx

NGINX = """
daemon off; master_process off; pid %(folder)s/pid; error_log %(folder)s/error.log;
events {}
http {
    access_log off; client_max_body_size 0;
    client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi; scgi_temp_path %(folder)s/scgi;
    server {
        listen 127.0.0.1:%(port)d;
        proxy_http_version 1.1;
        location /buffered { proxy_pass %(upstream)s; }
        location /unbuffered { proxy_request_buffering off; proxy_pass %(upstream)s; }
        location /small { client_max_body_size 1m; proxy_pass %(upstream)s; }
    }
}
"""


@unittest.skipUnless(shutil.which("nginx"), "nginx is not installed")
class ThroughNginx(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.server = Server()
        self.server.__enter__()
        self.addCleanup(self.server.__exit__, None, None, None)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        configuration = os.path.join(self.folder, "nginx.conf")
        pathlib.Path(configuration).write_text(
            NGINX % {"folder": self.folder, "port": self.port, "upstream": self.server.url.replace("/v1", "")}
        )
        nginx = subprocess.Popen(
            ["nginx", "-p", self.folder, "-c", configuration, "-e", os.path.join(self.folder, "error.log")],
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(nginx.wait, PATIENCE_SECONDS)
        self.addCleanup(nginx.terminate)
        self.wait_until_it_listens(nginx)

    def wait_until_it_listens(self, nginx):
        pause = threading.Event()
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if nginx.poll() is not None:
                    break
                pause.wait(0.01)
        self.fail("nginx did not start: " + pathlib.Path(self.folder, "error.log").read_text())

    def sdk(self, location):
        sdk = SDK("key", server_url="http://127.0.0.1:%d/%s/v1" % (self.port, location))
        self.addCleanup(sdk.close)
        return sdk

    def test_uploads_arrive_whole_with_request_buffering_on_and_off(self):
        path = pathlib.Path(self.folder, "file.bin")
        for size in (0, len(EVERY_BYTE), 5 * MIB):
            data = (EVERY_BYTE * (size // len(EVERY_BYTE) + 1))[:size]
            path.write_bytes(data)
            for location in ("buffered", "unbuffered"):
                storage = self.sdk(location).storage
                for name, content in (
                    ("bytes", data),
                    ("a path", path),
                    ("a generator", in_pieces(data)),
                    ("BytesIO", io.BytesIO(data)),
                ):
                    with self.subTest(size=size, location=location, source=name):
                        storage.storage_upload(key="k", file={"file_name": "f", "content": content})
                        self.assertEqual(self.server.received[-1].path, "/%s/v1/storage/upload" % location)
                        self.assertTrue(self.server.received[-1].file == data)

    def test_too_large_a_body_is_its_413_while_the_body_goes_out(self):
        storage = self.sdk("small").storage
        for name, make in (
            ("bytes", lambda: bytes(40 * MIB)),
            ("a generator", lambda: (bytes(65536) for _ in range(640))),
        ):
            for twin in ("storage_upload", "storage_upload_async"):
                with self.subTest(source=name, twin=twin):
                    with self.assertRaises(errors.SDKError) as caught:
                        result = getattr(storage, twin)(key="k", file={"file_name": "f", "content": make()})
                        if twin.endswith("_async"):
                            asyncio.run(self.finish(result))
                    self.assertEqual(caught.exception.status_code, 413)
        self.assertEqual(self.server.received, [])

    async def finish(self, awaitable):
        return await awaitable


if __name__ == "__main__":
    unittest.main()
