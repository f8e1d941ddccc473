"""What a run needs around it: the peers in a virtual environment, a certificate, and nginx on loopback."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import venv

PEERS = ["aerostack==0.1.2", "urllib3", "requests", "httpx", "aiohttp"]

# Debian keeps nginx where only root's PATH leads.
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"

ANSWERS = {
    "/ai/chat": (200, '{"content":"Hello!","usage":{"tokens":12}}'),
    "/auth/signin": (200, '{"token":"t","user":{"id":"u1","email":"ada@example.com"}}'),
    "/auth/signup": (201, '{"token":"t","user":{"id":"u1","email":"ada@example.com"}}'),
    "/cache/get": (200, '{"value":{"name":"Ada","visits":[1,2,3]},"exists":true}'),
    "/cache/set": (200, '{"success":true}'),
    "/db/query": (200, '{"results":[{"id":1,"name":"Ada"}],"count":1}'),
    "/queue/enqueue": (201, '{"success":true,"jobId":"j1"}'),
    "/services/invoke": (200, '{"success":true,"result":{"sum":3}}'),
}

# nginx reads the body of an upload to its end only where it is about to hand it on, so it hands it on, without the
# body, to a sink behind it. The body stays in memory: a temporary file would measure the disk.
CONFIG = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.pem;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        {locations}
        location = /v1/storage/upload {{
            client_max_body_size 0;
            client_body_buffer_size 300m;
            proxy_pass http://unix:{folder}/sink.sock;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{folder}/sink.sock;
        location / {{ return 200 '{{"url":"https://files.example.com/f","key":"f"}}'; }}
    }}
}}
"""

CERTIFICATE = """
import sys, trustme
ca = trustme.CA()
ca.cert_pem.write_to_path(sys.argv[1] + "/ca.pem")
ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(sys.argv[1] + "/server.pem")
"""


def peers(folder):
    """A virtual environment with the peers in it -> its Python."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-qqq"]
    subprocess.run(pip + ["install", "trustme"] + PEERS, check=True)
    # setuptools comes with a .pth file that every start of this Python would pay for.
    subprocess.run(pip + ["uninstall", "-y", "setuptools"], check=True, stderr=subprocess.DEVNULL)
    return python


def site_packages(python):
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.check_output([python, "-c", ask], universal_newlines=True).strip()


def official_footprint(python, folder):
    """Bytes of the official SDK with all that it needs, as pip installs it without bytecode."""
    target = os.path.join(folder, "official")
    if not os.path.exists(target):
        pip = [python, "-m", "pip", "--disable-pip-version-check", "-qqq"]
        subprocess.run(pip + ["install", "--no-compile", "--target", target, PEERS[0]], check=True)
    return sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(target) for name in names)


@contextlib.contextmanager
def nginx(python, folder):
    """Runs nginx -> its URL for http and for https, and the file that vouches for the latter."""
    subprocess.run([python, "-c", CERTIFICATE, folder], check=True)
    http, https = free_port(), free_port()
    locations = "".join("location = /v1%s { return %d '%s'; }\n" % (path, *answer) for path, answer in ANSWERS.items())
    config = os.path.join(folder, "nginx.conf")
    with open(config, "w") as file:
        file.write(CONFIG.format(folder=folder, http=http, https=https, locations=locations))
    # Memory once taken is kept, else every upload waits for the kernel to clear its pages anew.
    keep = dict(os.environ, MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="1000000000")
    process = subprocess.Popen([nginx_program(), "-p", folder, "-c", config], env=keep, stderr=subprocess.DEVNULL)
    try:
        wait_until_open(https, process, os.path.join(folder, "error.log"))
        yield {"http": "http://127.0.0.1:%d/v1" % http, "https": "https://127.0.0.1:%d/v1" % https}, folder + "/ca.pem"
    finally:
        process.terminate()
        process.wait()


def nginx_program():
    program = shutil.which("nginx", path=SEARCH)
    if not program:
        sys.exit(
            "nginx is missing, and without it nothing is measured: apt-get update && apt-get install -y nginx-light"
        )
    return program


def nginx_version():
    told = subprocess.run([nginx_program(), "-v"], check=True, stderr=subprocess.PIPE, text=True).stderr
    return told.strip().rpartition("/")[2]


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_open(port, process, log):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.05)
    with open(log) as file:
        sys.exit("nginx does not start:\n" + file.read())
