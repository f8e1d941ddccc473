"""Uploads: the exact bytes, every kind of source, and what is refused."""

import asyncio
import io
import mimetypes
import os
import pathlib
import random
import threading
import unittest

from aerostack_lite import errors, models
from tests.upload_case import BOTH_TWINS, DATA, PATIENCE_SECONDS, UploadCase, as_coroutine, finish
from tests.upload_sources import (
    EITHER,
    ONE_WAY,
    REWINDABLE,
    TO_BE_AWAITED,
    Fspath,
    Unseekable,
    Uploaded,
    Upper,
    in_a_pipe,
)

FILE_NAMES = [  # given, and as it must stand between the quotes
    ("plain.txt", b"plain.txt"),
    ("two words.txt", b"two words.txt"),
    (" ", b" "),
    ('say "hi".txt', b"say %22hi%22.txt"),
    ("back\\slash", b"back\\\\slash"),
    ('\\"', b"\\\\%22"),
    ("cr\rlf\nnul\0tab\t", b"cr%0Dlf%0Anul%00tab%09"),
    (
        "".join(map(chr, range(32))).replace("\x1b", ""),
        b"".join(b"%%%02X" % code for code in range(32) if code != 0x1B),
    ),
    ("escape\x1bdelete\x7f", b"escape\x1bdelete\x7f"),
    ("100%25;name=x.txt", b"100%25;name=x.txt"),
    ("a/b\u2215../c.txt", b"a/b\xe2\x88\x95../c.txt"),
    ("caf\u00e9\u0085.txt", b"caf\xc3\xa9\xc2\x85.txt"),
    ("\U0001f600.txt", b"\xf0\x9f\x98\x80.txt"),
    ("\u202eabc\u05d0\u05d1.txt", b"\xe2\x80\xaeabc\xd7\x90\xd7\x91.txt"),
]


class ExactBytes(UploadCase):
    def test_the_body_is_these_bytes(self):
        server = self.serve()
        request = {
            "key": "a/b.txt",
            "content_type": "text/x-note",
            "file": {"file_name": "b.txt", "content": b"hello", "content_type": "text/plain; charset=utf-8"},
        }
        for twin in BOTH_TWINS:
            self.assertEqual(finish(twin, getattr(self.sdk(server).storage, twin)(request)).url, "u")
            received = server.received[-1]
            self.assertEqual((received.method, received.path), ("POST", "/v1/storage/upload"))
            self.assertEqual(received.header("x-aerostack-key"), "key")
            expected = (
                b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\na/b.txt\r\n'
                b'--B\r\nContent-Disposition: form-data; name="contentType"\r\n\r\ntext/x-note\r\n'
                b'--B\r\nContent-Disposition: form-data; name="file"; filename="b.txt"\r\n'
                b"Content-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n--B--\r\n"
            )
            self.assertEqual(bytes(received.body), expected.replace(b"B", received.boundary.encode()))
            self.assertEqual(received.header("content-length"), str(len(received.body)))

    def test_content_type_is_a_field_only_when_it_was_given(self):
        server = self.serve()
        self.upload(server, b"x")
        self.assertEqual(
            [head for head, _ in server.received[0].parts],
            [
                b'Content-Disposition: form-data; name="key"',
                b'Content-Disposition: form-data; name="file"; filename="file.bin"\r\n'
                b"Content-Type: application/octet-stream",
            ],
        )

    def test_file_names_are_escaped_as_the_official_sdk_escapes_them(self):
        server = self.serve()
        sdk = self.sdk(server)
        for name, escaped in FILE_NAMES:
            with self.subTest(name=name):
                self.upload(server, b"x", file_name=name, content_type="a/b", sdk=sdk)
                self.assertEqual(
                    server.received[-1].file_head,
                    b'Content-Disposition: form-data; name="file"; filename="' + escaped + b'"\r\nContent-Type: a/b',
                )

    def test_keys_go_out_untouched(self):
        server = self.serve()
        sdk = self.sdk(server)
        for key in ("", " ", 'a"b\\c', "line\r\nline", "50%;x", "\u00e9\U0001f600\u202e", "../../etc"):
            with self.subTest(key=key):
                sdk.storage.storage_upload(key=key, file={"fileName": "f", "content": b"x"})
                self.assertEqual(
                    server.received[-1].parts[0], (b'Content-Disposition: form-data; name="key"', key.encode())
                )

    def test_a_name_that_is_a_broken_url_is_a_name(self):
        server = self.serve()
        self.upload(server, b"x", file_name="//[draft] a.jpg")
        self.assertIn(b'filename="//[draft] a.jpg"', server.received[0].file_head)

    def test_the_type_is_the_given_one_else_guessed_from_the_name_else_octet_stream(self):
        server = self.serve()
        sdk = self.sdk(server)
        guessed = mimetypes.guess_type("UP.JPG")[0]
        self.assertEqual(guessed, "image/jpeg")
        for name, given, expected in [
            ("a.txt", None, "text/plain"),
            ("UP.JPG", None, guessed),
            ("a/b.pdf", None, "application/pdf"),
            ("noext", None, "application/octet-stream"),
            ("a.txt", "x/y", "x/y"),
            ("a.txt", "", ""),
            ("a.txt", 'a/b; name="\u00e9;\\"', 'a/b; name="\u00e9;\\"'),
        ]:
            with self.subTest(name=name, given=given):
                self.upload(server, b"x", file_name=name, content_type=given, sdk=sdk)
                head = server.received[-1].file_head.decode()
                self.assertEqual(head.partition("\r\nContent-Type:")[2].strip(), expected)

    def test_the_request_s_own_content_type_is_not_the_file_s(self):
        server = self.serve()
        self.sdk(server).storage.storage_upload(
            key="k", content_type="image/png", file={"file_name": "a.txt", "content": b"x"}
        )
        self.assertEqual(
            server.received[0].parts[1], (b'Content-Disposition: form-data; name="contentType"', b"image/png")
        )
        self.assertIn(b"Content-Type: text/plain", server.received[0].file_head)

    def test_every_request_has_a_boundary_of_its_own_that_no_seed_foretells(self):
        server = self.serve()
        sdk = self.sdk(server)
        for _ in range(5):
            random.seed(1)
            self.upload(server, b"x", sdk=sdk)
        self.assertEqual(len({received.boundary for received in server.received}), 5)

    def test_content_that_looks_like_a_boundary_arrives_whole(self):
        server = self.serve()
        content = (
            b"--\r\n----\r\n\r\n--" + b"0" * 32 + b'\r\nContent-Disposition: form-data; name="key"\r\n\r\nother\r\n--'
        )
        self.upload(server, content)
        self.assertEqual(server.received[0].file, content)


# ---- Where the content comes from


class Sources(UploadCase):
    def check(self, sources, chunked):
        server = self.serve()
        sdk = self.sdk(server)
        for name, make in sources.items():
            for data in (DATA, b""):
                if name == "mmap" and not data:
                    continue  # the system maps no empty file
                for twin in BOTH_TWINS:
                    with self.subTest(source=name, size=len(data), twin=twin):
                        self.upload(server, make(self, data), twin=twin, sdk=sdk, retries=None)
                        received = server.received[-1]
                        self.assertTrue(
                            received.file == data, "%d bytes arrived of %d" % (len(received.file), len(data))
                        )
                        if chunked is not None:
                            self.assertEqual(received.header("transfer-encoding"), "chunked" if chunked else None)
                        if not received.chunked:
                            self.assertEqual(received.header("content-length"), str(len(received.body)))
                        else:
                            self.assertIsNone(received.header("content-length"))

    def test_a_source_of_known_length_goes_out_whole_with_a_content_length(self):
        self.check(REWINDABLE, chunked=False)

    def test_a_source_of_unknown_length_goes_out_in_chunks(self):
        self.check(ONE_WAY, chunked=True)

    def test_sources_that_may_be_sent_either_way_arrive_whole(self):
        self.check(EITHER, chunked=None)

    def test_a_file_that_changes_what_it_reads_is_read_and_not_copied_past_its_read(self):
        server = self.serve()
        self.upload(server, Upper(self.open(str(self.path(b"shout" * 1000)), "rb")))
        self.assertEqual(server.received[0].file, b"SHOUT" * 1000)

    def test_an_open_file_is_left_open(self):
        server = self.serve()
        for name in (
            "BytesIO",
            "a file",
            "an unbuffered file",
            "TemporaryFile, just written",
            "SpooledTemporaryFile on disk",
        ):
            with self.subTest(source=name):
                source = REWINDABLE[name](self, DATA)
                self.upload(server, source)
                source.seek(0)
                self.assertEqual(source.read(3), DATA[:3])

    def test_a_reader_may_say_in_any_way_that_it_cannot_seek(self):
        server = self.serve()
        sdk = self.sdk(server)
        for error in (io.UnsupportedOperation("seek"), NotImplementedError(), AttributeError("seek")):
            for twin in BOTH_TWINS:
                with self.subTest(error=error, twin=twin):
                    self.upload(server, Unseekable(DATA, error), twin=twin, sdk=sdk)
                    self.assertTrue(server.received[-1].file == DATA)
        self.upload(server, Unseekable(DATA, None), sdk=sdk)  # its seek() does nothing, as its seekable() tells
        self.assertTrue(server.received[-1].file == DATA)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no named pipes")
    def test_a_named_pipe_is_opened_once_and_off_the_event_loop(self):
        """Closing it would send the writer away, and to open it waits for a writer."""
        for twin in BOTH_TWINS:
            with self.subTest(twin=twin):
                server = self.serve()
                path = os.path.join(self.folder, twin)
                os.mkfifo(path)
                failures = []

                def write():
                    try:
                        with open(path, "wb", buffering=0) as sink:
                            sink.write(DATA)
                    except OSError as error:
                        failures.append(error)

                def rescue():  # an upload that waits for another writer
                    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
                    with open(path, "wb", buffering=0):
                        pass

                writer = threading.Thread(target=write, daemon=True)
                writer.start()
                timer = threading.Timer(3, rescue)
                timer.start()
                try:
                    self.upload(server, pathlib.Path(path), twin=twin, retries=None)
                finally:
                    timer.cancel()
                    writer.join(PATIENCE_SECONDS)
                self.assertEqual(failures, [])
                self.assertTrue(server.received[0].file == DATA)

    @unittest.skipUnless(os.path.isdir("/dev/fd"), "no /dev/fd")
    def test_a_path_that_is_a_pipe_goes_out_in_chunks(self):
        server = self.serve()
        self.upload(server, pathlib.Path("/dev/fd/%d" % in_a_pipe(self, DATA).fileno()))
        self.assertTrue(server.received[0].chunked)
        self.assertTrue(server.received[0].file == DATA)

    @unittest.skipUnless(os.path.exists("/proc/self/cmdline"), "no /proc")
    def test_a_file_whose_size_the_system_gives_as_0_is_not_uploaded_empty(self):
        expected = pathlib.Path("/proc/self/cmdline").read_bytes()
        for source in (pathlib.Path("/proc/self/cmdline"), self.open("/proc/self/cmdline", "rb")):
            with self.subTest(source=type(source).__name__):
                server = self.serve()
                self.upload(server, source)
                self.assertEqual(server.received[0].file, expected)


class Short(UploadCase):
    """The file as the official dict or model, or only its path or bytes."""

    def check(self, file, name, content_type, key="folder/photo.jpg"):
        server = self.serve()
        storage = self.sdk(server).storage
        calls = [
            lambda: storage.storage_upload(key=key, file=file),
            lambda: storage.storage_upload({"key": key, "file": file}),
            lambda: storage.storage_upload(request={"key": key, "file": file}),
            lambda: storage.storage_upload(models.StorageUploadRequestBody(key=key, file=file)),
            lambda: asyncio.run(as_coroutine(storage.storage_upload_async(key=key, file=file))),
        ]
        for number, call in enumerate(calls):
            with self.subTest(file=repr(file)[:60], call=number):
                self.assertEqual(call().url, "u")
                self.assertEqual(
                    server.received[-1].parts,
                    [
                        (b'Content-Disposition: form-data; name="key"', key.encode()),
                        (
                            (
                                'Content-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: %s'
                                % (name, content_type)
                            ).encode(),
                            DATA,
                        ),
                    ],
                )

    def test_the_official_dict_by_field_name_or_alias(self):
        self.check({"file_name": "a.txt", "content": DATA}, "a.txt", "text/plain")
        self.check({"fileName": "a.txt", "": DATA, "Content-Type": "x/y"}, "a.txt", "x/y")

    def test_the_official_model(self):
        self.check(models.File(content=DATA, file_name="a.txt"), "a.txt", "text/plain")
        self.check(models.File(content=self.path(), file_name="a", content_type="x/y"), "a", "x/y")

    def test_a_path_gives_the_name(self):
        self.check(self.path(name="b.png"), "b.png", "image/png")
        self.check(Fspath(self.path(name="c.pdf")), "c.pdf", "application/pdf")

    def test_bytes_take_their_name_from_the_key(self):
        for file in (DATA, bytearray(DATA), memoryview(DATA)):
            self.check(file, "photo.jpg", "image/jpeg")
        self.check(DATA, "plain", "application/octet-stream", key="plain")


class Refused(UploadCase):
    """Refused at the call line, in words that help, with nothing sent."""

    def refused(self, pattern, **call):
        server = self.serve()
        storage = self.sdk(server).storage
        for twin in BOTH_TWINS:
            with self.subTest(twin=twin, pattern=pattern):
                with self.assertRaises(errors.ValidationError) as caught:
                    finish(twin, getattr(storage, twin)(**call))
                self.assertRegex(str(caught.exception), pattern)
        self.assertEqual(server.connections, [])
        return caught.exception

    def refused_content(self, content, pattern):
        return self.refused(pattern, request={"key": "k", "file": {"file_name": "f.txt", "content": content}})

    def test_text_with_the_advice_to_pass_bytes_or_a_path(self):
        error = self.refused_content("photo.jpg", r"(?is)bytes.*path|path.*bytes")
        self.assertIn("file", error.errors()[0]["loc"])
        self.refused(r"(?is)bytes.*path|path.*bytes", key="k", file="photo.jpg")

    def test_text_files(self):
        self.refused_content(self.open(str(self.path(b"text")), encoding="utf-8"), r"(?i)binary|\brb\b")
        self.refused_content(io.StringIO("text"), r"(?i)binary|bytes")

    def test_files_that_are_to_be_awaited(self):
        for name, make in TO_BE_AWAITED.items():
            source = make(DATA)
            if isinstance(source, asyncio.StreamReader):
                self.addCleanup(source._loop.close)
            advice = r"(?is)await.*\.file\b|\.file\b.*await" if hasattr(source, "file") else r"(?i)await|async"
            with self.subTest(source=name):
                self.refused_content(source, advice)
                self.refused(advice, key="k", file=source)

    def test_of_fastapi_s_upload_file_the_file_itself_is_taken(self):
        server = self.serve()
        for twin in BOTH_TWINS:
            self.upload(server, Uploaded(DATA).file, twin=twin)
            self.assertTrue(server.received[-1].file == DATA)

    def test_closed_files(self):
        for name in ("a file", "BytesIO", "SpooledTemporaryFile in memory"):
            source = REWINDABLE[name](self, DATA)
            source.close()
            self.refused_content(source, r"(?i)closed")

    def test_files_open_for_writing_only(self):
        self.refused_content(self.open(os.path.join(self.folder, "new"), "wb"), r"(?i)read")

    def test_directories(self):
        self.refused_content(pathlib.Path(self.folder), r"(?i)director")
        self.refused(r"(?i)director", key="k", file=pathlib.Path(self.folder))

    def test_paths_that_do_not_exist(self):
        path = pathlib.Path(self.folder, "missing.txt")
        server = self.serve()
        for twin in BOTH_TWINS:
            with self.assertRaisesRegex((FileNotFoundError, errors.ValidationError), "missing.txt"):
                self.upload(server, path, twin=twin)
        self.assertEqual(server.connections, [])

    def test_what_is_no_content_at_all(self):
        for content in (None, 5, 1.5, object(), bytes):
            self.refused_content(content, r"content")
        for file in (None, 5, object()):
            self.refused(r"file", key="k", file=file)

    def test_control_characters_in_the_type(self):
        for character in "\r\n\0\x0b\x1b":
            self.refused(
                r"(?i)content.?type",
                key="k",
                file={"file_name": "f", "content": b"x", "content_type": "a/b%sX: y" % character},
            )

    def test_a_model_that_was_changed_after_it_was_built(self):
        file = models.File(content=b"x", file_name="f")
        file.content_type = "a/b\r\nX-Injected: y"
        self.refused(r"(?i)content.?type", key="k", file=file)

    def test_paths_that_no_system_has(self):
        server = self.serve()
        with self.assertRaises(errors.ValidationError):
            self.upload(server, pathlib.Path("nul\0"))
        self.assertEqual(server.connections, [])

    def test_an_empty_name(self):
        self.refused(r"(?i)file.?name", key="k", file={"file_name": "", "content": b"x"})

    def test_lone_surrogates(self):
        for call in (
            {"key": "\ud800", "file": {"file_name": "f", "content": b"x"}},
            {"key": "k", "file": {"file_name": "\ud800", "content": b"x"}},
            {"key": "k", "content_type": "\ud800", "file": {"file_name": "f", "content": b"x"}},
            {"key": "k", "file": {"file_name": "f", "content": b"x", "content_type": "a/\ud800"}},
        ):
            self.refused(".", **call)

    def test_the_model_of_another_operation(self):
        self.refused(".", request=models.CacheSetRequestBody(key="k", value=1))

    def test_progress_that_cannot_be_called(self):
        server = self.serve()
        for progress in (5, "print", True):
            with self.assertRaises((TypeError, ValueError)):
                self.upload(server, b"x", progress=progress)
        self.assertEqual(server.connections, [])


if __name__ == "__main__":
    unittest.main()
