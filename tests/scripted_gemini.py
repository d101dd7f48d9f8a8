#!/usr/bin/env python3
"""Scripted stand-in for the Gemini API (stdlib only), for driving agent CLIs offline.

    scripted_gemini.py SCRIPT.json [--log requests.jsonl]

prints its URL on the first line and serves until killed. SCRIPT.json is a list of turns, served in order of arrival:
  "text": "..."                                                a text part
  "tools": [{"name": "run_shell_command", "args": {...}}]      function calls
  "usage": {"promptTokenCount": 1000, ...}                     overrides the default numbers
  "status": 429, "times": 2, "message": "..."                  answer an error (only the first `times` times, then the next turn)
Past the end of the script the answer is "done". Requests without tools (titles, checks) get "{}" and are not turns.
"""
import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"promptTokenCount": 1000, "cachedContentTokenCount": 0, "candidatesTokenCount": 100}
STATES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(200, "application/json", b"{}")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        path = self.path.split("?")[0]
        if path.endswith(":countTokens"):
            return self.answer(200, "application/json", b'{"totalTokens": 1000}')
        turn = self.server.turn(path, request)
        if "status" in turn:
            error = {"error": {"code": turn["status"], "message": turn.get("message", "scripted error"), "status": STATES.get(turn["status"], "INTERNAL")}}
            return self.answer(turn["status"], "application/json", json.dumps(error).encode())
        parts = [{"text": turn["text"]}] if turn.get("text") else []
        parts += [{"functionCall": one} for one in turn.get("tools", ())]
        usage = USAGE | turn.get("usage", {})
        usage["totalTokenCount"] = usage["promptTokenCount"] + usage["candidatesTokenCount"]
        body = json.dumps({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}], "usageMetadata": usage, "modelVersion": "scripted"})
        if path.endswith(":streamGenerateContent"):
            return self.answer(200, "text/event-stream", f"data: {body}\n\n".encode())
        self.answer(200, "application/json", body.encode())


class Server(ThreadingHTTPServer):
    def __init__(self, script: list[dict[str, Any]], log: Any = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.left, self.log, self.lock, self.errors = list(script), log, threading.Lock(), 0

    def turn(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if self.log:
                print(json.dumps({"path": path, "body": request}), file=self.log, flush=True)
            if not request.get("tools"):
                return {"text": "{}"}
            turn = self.left[0] if self.left else {"text": "done"}
            self.errors = self.errors + 1 if "status" in turn else 0
            if self.left and ("status" not in turn or self.errors >= turn.get("times", float("inf"))):
                del self.left[0]
                self.errors = 0
            return turn


def main() -> None:
    parser = argparse.ArgumentParser(description="scripted stand-in for the Gemini API")
    parser.add_argument("script", type=argparse.FileType())
    parser.add_argument("--log", type=argparse.FileType("a"), help="append each request, as JSONL")
    args = parser.parse_args()
    server = Server(json.load(args.script), args.log)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
