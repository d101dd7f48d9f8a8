#!/usr/bin/env python3
"""Scripted stand-in for the OpenAI Responses API (stdlib only), for driving agent CLIs offline.

    scripted_openai.py SCRIPT.json [--log requests.jsonl]

prints its URL on the first line and serves until killed. SCRIPT.json is a list of turns, served in order of arrival:
  "text": "..."                                           a message
  "tools": [{"name": "shell", "arguments": {...}}]        function calls
  "usage": {"input_tokens": 1000, "cached_tokens": 0}     overrides the default numbers
  "status": 429, "times": 2, "message": "..."             answer an error (only the first `times` times, then the next turn)
Past the end of the script the answer is "done".
"""
import argparse
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"input_tokens": 1000, "cached_tokens": 0, "output_tokens": 100}


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
        self.answer(200, "application/json", b'{"object": "list", "data": [], "models": []}')

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if not self.path.split("?")[0].endswith("/responses"):
            return self.answer(404, "application/json", b'{"error": {"message": "no such path"}}')
        turn = self.server.turn(self.path, request)
        if "status" in turn:
            error = {"error": {"message": turn.get("message", "scripted error"), "type": "error", "code": turn.get("code")}}
            return self.answer(turn["status"], "application/json", json.dumps(error).encode())
        items = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": turn["text"], "annotations": []}]}] if turn.get("text") else []
        items += [{"type": "function_call", "call_id": f"call_{uuid.uuid4().hex}", **one, "arguments": json.dumps(one["arguments"])} for one in turn.get("tools", ())]
        numbers, answer = USAGE | turn.get("usage", {}), f"resp_{uuid.uuid4().hex}"
        usage = {"input_tokens": numbers["input_tokens"], "input_tokens_details": {"cached_tokens": numbers["cached_tokens"]}, "output_tokens": numbers["output_tokens"],
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": numbers["input_tokens"] + numbers["output_tokens"]}
        events = [{"type": "response.created", "response": {"id": answer}}]
        events += [{"type": "response.output_item.done", "output_index": at, "item": {"id": f"item_{uuid.uuid4().hex}", "status": "completed", **item}} for at, item in enumerate(items)]
        events += [{"type": "response.completed", "response": {"id": answer, "status": "completed", "usage": usage, "output": []}}]
        self.answer(200, "text/event-stream", "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode())


class Server(ThreadingHTTPServer):
    def __init__(self, script: list[dict[str, Any]], log: Any = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.left, self.log, self.lock, self.errors = list(script), log, threading.Lock(), 0

    def turn(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if self.log:
                print(json.dumps({"path": path, "body": request}), file=self.log, flush=True)
            turn = self.left[0] if self.left else {"text": "done"}
            self.errors = self.errors + 1 if "status" in turn else 0
            if self.left and ("status" not in turn or self.errors >= turn.get("times", float("inf"))):
                del self.left[0]
                self.errors = 0
            return turn


def main() -> None:
    parser = argparse.ArgumentParser(description="scripted stand-in for the OpenAI Responses API")
    parser.add_argument("script", type=argparse.FileType())
    parser.add_argument("--log", type=argparse.FileType("a"), help="append each request, as JSONL")
    args = parser.parse_args()
    server = Server(json.load(args.script), args.log)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
