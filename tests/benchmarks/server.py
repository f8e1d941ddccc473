"""What a run needs around it: the peers in a virtual environment, a certificate, and nginx on loopback."""

import contextlib
import json
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

ROW = {"id": 1, "name": "Ada Lovelace", "email": "ada@example.com", "score": 0.5, "active": True}
ROWS = {"10": 10, "1k": 1000, "100k": 100000, "20MB": 20000000 // len(json.dumps(ROW, separators=(",", ":")))}

# /v1      answers at once
# /rows/   answers with so many rows
# /slow/   takes 5 ms, as an answer does that has to come from somewhere
# /sink/   reads the body to its end before it answers; nginx does so only where it is about to hand the request on,
#          so it hands it on, without the body, to a server behind it. The body stays in memory: a file would measure
#          the disk.
CONFIG = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 0;
    client_body_buffer_size 1100m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.pem;
    ssl_protocols TLSv1.3;
    limit_req_zone $server_name zone=slow:1m rate=200r/s;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        location /v1/ {{ return 200 '{answer}'; }}
        location /rows/ {{ root {folder}; error_page 405 =200 $uri; }}
        location /slow/ {{ limit_req zone=slow burst=100; proxy_pass http://unix:{folder}/sink.sock; }}
        location /sink/ {{
            proxy_pass http://unix:{folder}/sink.sock;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{folder}/sink.sock;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""
ANSWER = '{"success":true,"url":"https://files.example.com/file.bin"}'

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


def install(python, module):
    """Puts the file beside the peers, where its bytecode can be written as theirs is."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    shutil.copy(module, subprocess.check_output([python, "-c", ask], text=True).strip())


@contextlib.contextmanager
def nginx(python, folder):
    """Runs nginx -> where it listens, by scheme, and the file that vouches for it."""
    subprocess.run([python, "-c", CERTIFICATE, folder], check=True)
    for name, count in ROWS.items():
        answer = {"results": [dict(ROW, id=number) for number in range(count)], "count": count}
        write(json.dumps(answer, separators=(",", ":")), folder, "rows", name, "db", "query")
        write(ANSWER, folder, "rows", name, "cache", "set")
    http, https = free_port(), free_port()
    config = write(CONFIG.format(folder=folder, http=http, https=https, answer=ANSWER), folder, "nginx.conf")
    # Memory once taken is kept, else every upload waits for the kernel to clear its pages anew.
    keep = dict(os.environ, MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="10000000000")
    process = subprocess.Popen([nginx_program(), "-p", folder, "-c", config], env=keep, stderr=subprocess.DEVNULL)
    try:
        wait_until_open(https, process, os.path.join(folder, "error.log"))
        yield {"http": "http://127.0.0.1:%d" % http, "https": "https://127.0.0.1:%d" % https}, folder + "/ca.pem"
    finally:
        process.terminate()
        process.wait()


def write(text, *path):
    path = os.path.join(*path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def nginx_program():
    program = shutil.which("nginx", path=SEARCH)
    if not program:
        sys.exit("nginx is missing, and without it nothing is measured: apt-get install nginx-light curl strace")
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
