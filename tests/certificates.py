"""Certificates made on the spot by the program openssl, for servers on loopback."""

import atexit
import functools
import os
import shutil
import ssl
import subprocess
import tempfile
import unittest

from tests.scripted_server import HostsTestCase

OPENSSL = shutil.which("openssl")

# What an authority's certificate says about itself: all that RFC 5280 asks for, and less, as many companies have it.
COMPLETE = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash"
WITHOUT_KEY_USAGE = "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash"
WITHOUT_KEY_IDENTIFIER = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=none"
NOT_CRITICAL = "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash"

SETTINGS = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = %s
[extensions]
%s
"""


class Authority:
    """A certificate authority. Its own certificate lies at `path`, all that it makes in `folder`."""

    def __init__(self, folder, extensions=COMPLETE):
        self.folder, self._count = folder, 0
        self._name = "authority " + os.urandom(4).hex()  # OpenSSL takes two of one name for the same
        self._key, self.path = self._new("key"), self._new("pem")
        files = ("-keyout", self._key, "-out", self.path)
        self._request(self._name, extensions, "-x509", "-extensions", "extensions", *files)

    def issue(self, *names, **options):
        """A file with a certificate for these names and addresses, and its key. `days=-1`: it has expired."""
        extensions = options.pop("extensions", "authorityKeyIdentifier=keyid")
        days = options.pop("days", 30)
        if options:
            raise TypeError("unknown options: %s" % ", ".join(options))
        names = ",".join(("IP:" if name.replace(".", "").isdigit() else "DNS:") + name for name in names)
        key, request, certificate = self._new("key"), self._new("csr"), self._new("pem")
        extensions = "subjectAltName=%s\n%s" % (names, extensions)
        settings = self._request("server %d" % self._count, extensions, "-keyout", key, "-out", request)
        signing = ["-CA", self.path, "-CAkey", self._key, "-set_serial", str(self._count), "-days", str(days)]
        self._openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-extfile", settings, "-extensions", "extensions"),
            *signing,
        )
        with open(key, "rb") as source, open(certificate, "ab") as target:
            target.write(source.read())
        return certificate

    def server_context(self, *names, **options):
        """What a server needs that shows such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, **options))
        return context

    def hashed_folder(self):
        """A folder in which OpenSSL finds the certificate of this authority by the hash of its subject."""
        folder = tempfile.mkdtemp(dir=self.folder)
        name = self._openssl("x509", "-hash", "-noout", "-in", self.path).decode().strip()
        shutil.copy(self.path, os.path.join(folder, name + ".0"))
        return folder

    def der_file(self):
        """The certificate in the form in which Windows and browsers export it."""
        path = self._new("der")
        self._openssl("x509", "-in", self.path, "-outform", "DER", "-out", path)
        return path

    def _request(self, subject, extensions, *options):
        settings = self._new("cnf")
        with open(settings, "w") as file:
            file.write(SETTINGS % (subject, extensions))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self._openssl("req", "-new", *key, "-config", settings, *options)
        return settings

    def _new(self, ending):
        self._count += 1
        return os.path.join(self.folder, "%d.%s" % (self._count, ending))

    @staticmethod
    def _openssl(*arguments):
        command = (OPENSSL, *arguments)
        return subprocess.run(command, capture_output=True, check=True).stdout


@functools.lru_cache(maxsize=None)
def common_authority():
    """An authority that many tests share, and what a server needs for some names, made when first asked for."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, True)
    authority = Authority(folder)
    return authority, authority.server_context("127.0.0.1", "localhost", "host.test", "*.wide.test")


@unittest.skipUnless(OPENSSL, "openssl is not installed")
class CertificateCase(HostsTestCase):
    """Tests with a certificate authority, a folder of their class, and a server's context for some names."""

    @classmethod
    def setUpClass(cls):
        cls.authority, cls.tls = common_authority()
        cls.folder = tempfile.mkdtemp()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, True)

    @classmethod
    def new_authority(cls, *arguments):
        return Authority(tempfile.mkdtemp(dir=cls.folder), *arguments)

    def trusting(self, **options):
        """A client that trusts the authority of the class."""
        return self.client(ssl_context=ssl.create_default_context(cafile=self.authority.path), **options)
