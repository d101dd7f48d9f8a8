#!/usr/bin/env python3
"""Scripted stand-in for the Anthropic Messages API (stdlib only), for driving agent CLIs offline.

    fake_anthropic.py SCRIPT.json [--port 0] [--log requests.jsonl] [--sequential]

prints its URL on the first line and serves until killed.  SCRIPT.json is a list of turns; the turn
served is the number of assistant messages already in the request, so that the server needs no
conversation state and can serve many sessions at once.  A turn may have:
  "text": "..."                                 a text block
  "tools": [{"name": "Bash", "input": {...}}]   tool_use blocks; {cwd} in strings is filled in
  "usage": {"input_tokens": 1000, ...}          overrides the default usage numbers
  "status": 529, "times": 2, "message": "..."   answer an error (only the first `times` times)
  "delay": 3.0                                  seconds to wait before answering
  "cut": true                                   close the connection in the middle of the answer (only the first `times` times)
Past the end of the script the answer is "done".  Requests without tools (titles, probes) get
"done" too and are not turns, unless --sequential is given: then the turns are served in order
of arrival, to any request (for agents that edit by text, such as aider).
"""
import argparse, json, re, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"input_tokens": 1000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
         "output_tokens": 100}
ERRORS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
          404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}


def working_directory(request):
    """The working directory as the CLI states it in its prompt, if it does."""
    match = re.search(r'[Ww]orking directory: ([^\\"]+)', json.dumps(request))
    return match.group(1) if match else "."


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def record(self, **entry):
        if self.server.log:
            with self.server.lock:
                print(json.dumps(entry), file=self.server.log, flush=True)

    def send_json(self, status, obj):
        body = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error_json(self, status, message):
        kind = ERRORS.get(status, "api_error")
        self.send_json(status, {"type": "error", "error": {"type": kind, "message": message}})

    def do_GET(self):
        self.record(method=self.command, path=self.path)
        self.send_json(200, {})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            request = json.loads(body)
        except ValueError:
            return self.send_error_json(400, "the body is not JSON")
        self.record(method="POST", path=self.path, headers=dict(self.headers), body=request)
        if self.path.split("?")[0].endswith("/count_tokens"):
            return self.send_json(200, {"input_tokens": len(body) // 4})
        if not self.path.split("?")[0].endswith("/messages"):
            return self.send_error_json(404, "no such path")
        index, turn = self.server.turn(request)
        time.sleep(turn.get("delay", 0))
        if "status" in turn and self.server.count_error(index) <= turn.get("times", float("inf")):
            return self.send_error_json(turn["status"], turn.get("message", "scripted error"))
        cut = turn.get("cut") and self.server.count_error(index) <= turn.get("times", float("inf"))
        self.answer(request, turn, cut)

    def answer(self, request, turn, cut=False):
        blocks = [{"type": "text", "text": turn["text"]}] if turn.get("text") else []
        cwd = json.dumps(working_directory(request))[1:-1]
        for tool in json.loads(json.dumps(turn.get("tools", [])).replace("{cwd}", cwd)):
            blocks.append({"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex[:24], **tool})
        message = {"id": "msg_" + uuid.uuid4().hex[:24], "type": "message", "role": "assistant",
                   "model": request.get("model", "fake"), "content": blocks,
                   "stop_reason": "tool_use" if turn.get("tools") else "end_turn",
                   "stop_sequence": None, "usage": {**USAGE, **turn.get("usage", {})}}
        if not request.get("stream"):
            return self.send_json(200, message)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")  # also sets self.close_connection
        self.end_headers()
        self.event("message_start", message={**message, "content": [], "stop_reason": None,
                                             "usage": {**message["usage"], "output_tokens": 1}})
        if cut:
            self.wfile.flush()
            return self.connection.close()
        for i, block in enumerate(blocks):
            if block["type"] == "text":
                empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
            else:
                empty = {**block, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            self.event("content_block_start", index=i, content_block=empty)
            self.event("content_block_delta", index=i, delta=delta)
            self.event("content_block_stop", index=i)
        self.event("message_delta", usage={"output_tokens": message["usage"]["output_tokens"]},
                   delta={"stop_reason": message["stop_reason"], "stop_sequence": None})
        self.event("message_stop")

    def event(self, kind, **fields):
        data = json.dumps({"type": kind, **fields})
        self.wfile.write(f"event: {kind}\ndata: {data}\n\n".encode())
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    def __init__(self, script, port=0, log=None, sequential=False):
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.log, self.sequential = script, log, sequential
        self.lock, self.served, self.errors = threading.Lock(), 0, {}

    def turn(self, request):
        index = sum(m.get("role") == "assistant" for m in request.get("messages", []))
        if self.sequential:
            with self.lock:
                index, self.served = self.served, self.served + 1
        scripted = index < len(self.script) and (self.sequential or request.get("tools"))
        return index, self.script[index] if scripted else {"text": "done"}

    def count_error(self, index):
        with self.lock:
            self.errors[index] = self.errors.get(index, 0) + 1
            return self.errors[index]


def main():
    parser = argparse.ArgumentParser(description="scripted fake Anthropic Messages API")
    parser.add_argument("script", type=argparse.FileType())
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=argparse.FileType("a"), help="append each request, as JSONL")
    parser.add_argument("--sequential", action="store_true")
    args = parser.parse_args()
    server = Server(json.load(args.script), args.port, args.log, args.sequential)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
