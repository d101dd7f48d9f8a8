"""httpbin over HTTP and HTTPS in place of the hosts given, on free ports of the loopback interface; says which once it listens."""

import io
import json
import os
import ssl
import sys
import threading

import trustme
from httpbin import app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app


class Handler(WSGIRequestHandler):
    """Keeps connections open, as httpbin.org does and tests want; werkzeug's own closes each."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # what httpbin.org says it is; of any other server httpbin believes that it cannot take chunked requests
    server_version, sys_version = "gunicorn/19.9.0", ""

    def run_wsgi(self):
        environ = self.make_environ()
        # all of it, also what httpbin does not look at: it would be taken for the next request, or reset the connection
        ended = environ.get("wsgi.input_terminated")
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read() if ended else self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        parts, status, headers = run_wsgi_app(app, environ)
        code, _, reason = status.partition(" ")
        empty = self.command == "HEAD" or code in ("204", "304") or code.startswith("1")
        chunked = not empty and "Content-Length" not in headers and self.request_version >= "HTTP/1.1"
        if not (empty or chunked or "Content-Length" in headers):
            self.close_connection = True
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        for part in parts:
            if part and not empty:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


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
