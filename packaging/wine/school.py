"""The embedded server, started by the Linux program, for the trials under wine."""

import re
import socket
import subprocess

WINE = "/usr/lib/wine/wine64"
SERVER = ["--rows", "300", "--seed", "11", "--start", "2026-01-01T00:00:00Z"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(program, port, commits, log):
    """Starts a server of the school after a number of commits; the same seed and start give the same data. Returns the process and the variables
    with its address and credentials.
    """
    server = subprocess.Popen([program, "serve", "--port", str(port), "--commits", str(commits), *SERVER], stdout=subprocess.PIPE, stderr=log)
    for line in server.stdout:
        text = line.decode()
        if match := re.search(r"DAP_API_URL=(\S+) DAP_CLIENT_ID='(.*)' DAP_CLIENT_SECRET=(\S+)", text):
            return server, dict(zip(("DAP_API_URL", "DAP_CLIENT_ID", "DAP_CLIENT_SECRET"), match.groups()))
    raise SystemExit("the server did not start")
