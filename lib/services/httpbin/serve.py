"""httpbin over HTTP and HTTPS in place of the hosts given, on free ports of the loopback interface; says which once it listens."""

import json
import os
import ssl
import sys
import threading

import trustme
from httpbin import app
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # what httpbin.org says it is; of any other server httpbin believes that it cannot take chunked requests
    server_version, sys_version = "gunicorn/19.9.0", ""


def secured(server, hosts):
    """A server that speaks TLS, under a certificate authority that nobody else trusts and that ends with it. Returns the authority's file."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    # the handshake belongs to the thread of a connection: on accept, a client that says nothing would stop all others
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.ssl_context = context
    authority.cert_pem.write_to_path("authority.pem")
    return os.path.abspath("authority.pem")


def main():
    hosts = sys.argv[1:]
    plain, secure = (make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler) for _ in range(2))
    trust = secured(secure, hosts)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    # the name that it stands for, not its port: tests take this address apart, and put the host into others
    told = {"ports": {"80": plain.server_port, "443": secure.server_port}, "trust": trust, "environment": {"HTTPBIN_URL": f"http://{hosts[0]}/"}}
    print(json.dumps(told), flush=True)
    plain.serve_forever()


if __name__ == "__main__":
    main()
