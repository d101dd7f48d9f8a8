"""Sends a process of a task to local services: names and addresses that its tests have in them lead to the loopback interface.

Copied into the task's venv and imported when its Python starts; does nothing unless SWERUN_REDIRECT is set. Within the process, for
that needs no root, no name server and no namespace, and works wherever Python does; the tests see the names that they always saw.
Python 3.6 and newer. What is not Python (curl) is not redirected.
"""

import functools
import os


def redirect(text):
    """Redirect what is resolved and connected to: `text` is "httpbin.org:80=127.0.0.1:8080 10.255.255.1=127.0.0.1:9090"."""
    import socket

    ports = {}
    for one in text.split():
        source, _, goal = one.partition("=")
        host, _, port = source.partition(":")
        address, _, number = goal.partition(":")
        ports.setdefault(host, {})[port] = (address, int(number))

    def goal_of(host, port):
        """(address, port), or None where that is not ours to say."""
        if isinstance(host, (bytes, bytearray)):
            host = bytes(host).decode("ascii", "replace")
        if isinstance(port, (bytes, bytearray)):
            port = bytes(port).decode("ascii", "replace")
        name = host.lower().rstrip(".") if isinstance(host, str) else None
        if any(name and name.endswith("." + known) for known in ports):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name not in ports:
            return None
        port = {"http": 80, "https": 443}.get(port, port)
        # a service's other ports are closed; tcpmux, which nobody runs
        return ports[name].get(str(port)) or ports[name].get("") or ("127.0.0.1", 1 if port else 0)

    resolve = socket.getaddrinfo

    @functools.wraps(resolve)
    def getaddrinfo(host, port, *args, **more):
        goal = goal_of(host, port)
        return resolve(*goal, *args, **more) if goal else resolve(host, port, *args, **more)

    def redirecting(original):
        @functools.wraps(original)
        def connect(self, address):
            goal = goal_of(*address) if self.family == socket.AF_INET and isinstance(address, tuple) and len(address) == 2 else None
            return original(self, goal or address)

        return connect

    socket.getaddrinfo = getaddrinfo
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, redirecting(getattr(socket.socket, name)))


def trust(authorities):
    """Trust these files of certificates wherever any others are trusted: REQUESTS_CA_BUNDLE is not heeded by all, and changes what tests see."""
    import ssl

    def trusting(original):
        @functools.wraps(original)
        def also(self, *args, **more):
            original(self, *args, **more)
            for file in authorities:
                try:
                    load(self, file)
                except ssl.SSLError:  # there already, says an old OpenSSL
                    pass

        return also

    load = ssl.SSLContext.load_verify_locations
    for name in ("load_verify_locations", "set_default_verify_paths"):
        setattr(ssl.SSLContext, name, trusting(getattr(ssl.SSLContext, name)))


if os.environ.get("SWERUN_REDIRECT"):
    redirect(os.environ["SWERUN_REDIRECT"])
if os.environ.get("SWERUN_TRUST"):
    trust(os.environ["SWERUN_TRUST"].split())
