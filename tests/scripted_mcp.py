#!/usr/bin/env python3
"""A tiny MCP server on stdio (stdlib only) with one tool, `lookup`, which says where a symbol is."""
import json
import sys

TOOL = {"name": "lookup", "description": "Look a symbol up in the code index.", "inputSchema": {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]}}

for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue  # a notification
    params = request.get("params") or {}
    match request["method"]:
        case "initialize":
            result = {"protocolVersion": params.get("protocolVersion", "2025-06-18"), "capabilities": {"tools": {}}, "serverInfo": {"name": "scripted-mcp", "version": "0.1"}}
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call":
            result = {"content": [{"type": "text", "text": f"{params['arguments'].get('symbol')} is in slug.py"}], "isError": False}
        case "ping":
            result = {}
        case _:
            result = None
    answer = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)
