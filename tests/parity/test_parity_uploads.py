"""Uploads: the same parts, whatever the file is and however it is called."""

import io
import os
import pathlib
import tempfile
import unittest

from tests.parity.beside import Case, Own, Parity, good
from tests.parity.recorder import Answer
from tests.parity.sources import AwaitedReader, Reader, one_way, pipe


def upload(name, content=b"content", file_name="a.bin", key="k", locs=True, answers=None, **more):
    file = {"file_name": file_name, "content": content}
    if "part_type" in more:
        file["content_type"] = more.pop("part_type")
    return Case(name, "storage.storage_upload", dict(more, key=key, file=file), answers, locs=locs)


class Names(Parity):
    def test_file_names_are_escaped_alike(self):
        for name in (
            'a"b.txt',
            "a\\b.txt",
            "a\r\nb.txt",
            "a\tb",
            "a%22b",
            "é🚀.txt",
            "../../etc/passwd",
            "C:\\temp\\a.txt",
            "a;b=c.txt",
            "'a'.txt",
            " a ",
            "\x00",
            "\x1b\x7f",
            "a" * 300,
            "\u202egpj.exe",
            'name="x"; filename="y"',
        ):
            self.same(upload(ascii(name)[:40], file_name=name))

    def test_every_control_character(self):
        self.same(upload("all of them", file_name="".join(map(chr, range(32)))), upload("C1", file_name="\x80\x9f\xa0"))

    def test_an_empty_or_impossible_file_name_is_refused(self):
        self.same(
            upload("empty", file_name="", locs=False),
            upload("surrogate", file_name="\ud800", locs=False),
            upload("None", file_name=None),
            upload("number", file_name=5),
        )

    def test_keys_go_out_raw(self):
        for key in ("", "a/b/c.jpg", "é🚀", 'a"b', "a\r\nb", "--boundary", "a=b&c", "%2F", " ", "\\"):
            self.same(upload(ascii(key), key=key))
        self.same(upload("surrogate in the key", key="\ud800", locs=False))

    def test_bytes_pass_for_texts(self):
        self.same(upload("bytes", file_name=b"a.txt", key=b"k", content_type=b"a/b", part_type=b"c/d"))


class Types(Parity):
    def test_the_type_of_the_part(self):
        for name in (
            "a.txt",
            "a.html",
            "a.png",
            "a.jpg",
            "a.json",
            "a.tar.gz",
            "a.unknown",
            "a",
            ".txt",
            "A.TXT",
            "a.css",
            "a.svg",
            "a.pdf",
        ):
            self.same(upload("guessed from " + name, file_name=name))
        for kind in ("text/x-own", "", "text/plain; charset=utf-8", "nonsense", "x/é"):
            self.same(upload("given as %r" % kind, part_type=kind, locs=False))

    def test_the_type_of_the_request_is_only_a_field(self):
        for kind in ("image/jpeg", "", "é", "a\r\nb"):
            self.same(upload("field %r" % kind, content_type=kind, file_name="a.png"))
        self.same(upload("both", content_type="a/b", part_type="c/d"))

    def test_spellings(self):
        file = {"fileName": "a", "content": b"x", "Content-Type": "a/b"}
        self.same(
            Case("wire names", "storage.storage_upload", {"key": "k", "file": file, "contentType": "c/d"}),
            Case(
                "both names",
                "storage.storage_upload",
                {"key": "k", "file": dict(file, file_name="own", content_type="own/own")},
            ),
        )


class Contents(Parity):
    def test_bytes(self):
        for name, content in (
            ("empty", b""),
            ("every byte", bytes(range(256))),
            ("line ends", b"\r\n\r\n--\r\n"),
            ("bytearray", bytearray(b"ab")),
            ("100 kB", os.urandom(100000)),
        ):
            self.same(upload(name, Own(lambda package: content)))

    def test_an_open_file_is_sent_from_its_start_and_left_open(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "f")
            with open(path, "wb") as file:
                file.write(b"0123456789" * 20000)
            for position in (0, 5, 200000):

                def content(package):
                    opened = open(path, "rb")
                    opened.seek(position)
                    self.addCleanup(opened.close)
                    return opened

                self.same(upload("from %d" % position, Own(content)))
            with open(path, "rb") as file:
                self.same(upload("twice the same", Own(lambda package: file)))
                self.assertFalse(file.closed)

    def test_an_empty_file(self):
        with tempfile.TemporaryFile("rb") as file:
            self.same(upload("empty file", Own(lambda package: file)))

    def test_a_stream_that_cannot_go_back(self):
        self.same(
            upload("one way", Own(lambda package: one_way(b"once"))),
            upload("one way, long", Own(lambda package: one_way(b"x" * 200000))),
        )

    def test_a_large_file_arrives_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "large")
            with open(path, "wb") as file:
                file.write(os.urandom(3 << 20))
            with open(path, "rb") as file:
                self.same(upload("3 MiB", Own(lambda package: file)))

    def test_what_is_refused(self):
        def closed(package):
            file = open(__file__, "rb")
            file.close()
            return file

        def text(package):
            file = open(__file__)
            self.addCleanup(file.close)
            return file

        for name, content in (
            ("text file", text),
            ("StringIO", lambda package: io.StringIO("x")),
            ("closed file", closed),
            ("read() that must be awaited", lambda package: AwaitedReader()),
            ("None", lambda package: None),
            ("number", lambda package: 5),
            ("list", lambda package: [1]),
            ("dict", lambda package: {}),
        ):
            self.same(upload(name, Own(content), locs=False))
        for file in (("a", b"b"), [b"x"], [], None, 5):
            self.same(Case("file = %r" % (file,), "storage.storage_upload", {"key": "k", "file": file}, locs=False))

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        drawn = st.tuples(
            st.binary(max_size=50),
            st.text(min_size=1, max_size=8),
            st.text(max_size=8),
            st.one_of(st.none(), st.sampled_from(["a/b", "text/plain", ""])),
        )
        self.same_for_any(
            "any upload",
            drawn,
            lambda drawn: upload("", drawn[0], file_name=drawn[1], key=drawn[2], part_type=drawn[3]),
            examples=100,
        )


class TheAnswer(Parity):
    def test_is_read_as_for_the_others(self):
        for status, body in (
            (200, {"url": "u"}),
            (200, {}),
            (200, {"url": 5}),
            (413, "too large"),
            (500, ""),
            (401, {"code": "AUTH_INVALID_KEY"}),
        ):
            self.same(upload("%d %r" % (status, body), answers=Answer(status, body)))


class OnPurpose(Parity):
    def test_every_binary_source_is_taken(self):
        data = b"all of it" * 100
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "f.bin")
            with open(path, "wb") as file:
                file.write(data)

            def temporary(kind):
                def build(package):
                    file = kind()
                    self.addCleanup(file.close)
                    file.write(data)
                    file.seek(0)
                    return file

                return build

            def opened(mode, **more):
                def build(package):
                    file = open(path, mode, **more)
                    self.addCleanup(file.close)
                    return file

                return build

            for name, content in (
                ("BytesIO", lambda package: io.BytesIO(data)),
                ("memoryview", lambda package: memoryview(data)),
                ("unbuffered", opened("rb", buffering=0)),
                ("rb+", opened("rb+")),
                ("TemporaryFile", temporary(tempfile.TemporaryFile)),
                ("SpooledTemporaryFile", temporary(tempfile.SpooledTemporaryFile)),
                ("read() only", lambda package: Reader(data)),
                ("Path", lambda package: pathlib.Path(path)),
            ):
                self.differs(
                    "`BytesIO` and other binary readers, memoryview, paths",
                    name,
                    upload("", Own(content)),
                    lambda exchange: exchange.refused(),
                    lambda exchange: exchange.error is None and exchange.requests[0].parts()[-1][1] == data,
                )

    def test_the_file_may_be_short(self):
        with open(__file__, "rb") as opened:
            data = opened.read()
            for name, file, expected in (
                ("bytes", b"short", b"short"),
                ("a path", pathlib.Path(__file__), data),
                ("an open file", opened, data),
                ("BytesIO", io.BytesIO(b"short"), b"short"),
            ):
                self.differs(
                    "`file`",
                    name,
                    Case("", "storage.storage_upload", Own(lambda package: {"key": "k.bin", "file": file})),
                    lambda exchange: exchange.refused(),
                    lambda exchange: exchange.error is None and exchange.requests[0].parts()[-1][1] == expected,
                )

    def test_a_stream_of_unknown_length_is_sent_whole(self):
        def piped(package):
            reader = pipe(b"in pieces")
            self.addCleanup(reader.close)
            return reader

        for name, content in (("pipe", piped), ("generator", lambda package: (part for part in (b"in ", b"pieces")))):
            self.differs(
                "pipes and generators",
                name,
                upload("", Own(content)),
                lambda exchange: exchange.error is not None,
                lambda exchange: (
                    exchange.requests[0].framing == "chunked" and exchange.requests[0].parts()[-1][1] == b"in pieces"
                ),
            )

    def test_a_text_is_refused(self):
        self.differs(
            "`content` as a `str`",
            "a path",
            upload("", "photo.jpg"),
            lambda exchange: exchange.requests[0].parts()[-1][1] == b"photo.jpg",
            lambda exchange: exchange.refused("content"),
        )

    def test_a_part_type_with_a_line_end_is_refused(self):
        self.differs(
            "a line break in a part's content type",
            "with a header behind it",
            upload("", part_type="a/b\r\nX-Evil: 1"),
            lambda exchange: (b"x-evil", b"1") in exchange.requests[0].parts()[-1][0],
            lambda exchange: exchange.refused(),
        )

    def test_a_success_before_the_end_of_the_body_is_none(self):
        early = good("storage.storage_upload")
        early.then = "early"
        self.differs(
            "a 2xx that came before the whole body was sent",
            "after the head",
            upload("", Own(lambda package: one_way(b"x" * (8 << 20))), answers=early),
            lambda exchange: exchange.error is None,
            lambda exchange: exchange.raised("RemoteProtocolError"),
        )


if __name__ == "__main__":
    unittest.main()
