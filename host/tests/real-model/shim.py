"""Gives a small model tools: an answer to a request with tools is constrained to a call of one of them.

Arguments: the URL of the real server, and the port to listen on. After a tool's result the model talks.
"""

import http.server
import json
import sys
import urllib.request
import uuid

UPSTREAM, PORT = sys.argv[1], int(sys.argv[2])
MAX_CHARACTERS = 1200


def upstream(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(UPSTREAM + path, data, {"content-type": "application/json"})
    return urllib.request.urlopen(request).read()


def text(content):
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    return (content or "")[:MAX_CHARACTERS]


def plain(message):
    """A message as a model without tools understands it."""
    if message["role"] == "tool":
        return {"role": "user", "content": "Tool result: " + text(message["content"])}
    if message.get("tool_calls"):
        return {"role": "assistant", "content": json.dumps(message["tool_calls"][0]["function"])}
    return {"role": message["role"], "content": text(message.get("content"))}


def call_schema(function):
    parameters = function["parameters"]
    required = parameters.get("required", [])
    short = lambda schema: {"type": "string", "maxLength": 60} if schema.get("type") == "string" else schema
    properties = {name: short(parameters["properties"][name]) for name in required}
    arguments = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
    }


def complete(request):
    tools = [tool["function"] for tool in request.get("tools", [])]
    simple = [f for f in tools if all(f["parameters"]["properties"][n].get("type") == "string" for n in f["parameters"].get("required", []))]
    wants_call = simple and request["messages"][-1]["role"] == "user"
    body = {"model": request["model"], "temperature": 0, "max_tokens": 120, "messages": [plain(m) for m in request["messages"]]}
    if wants_call:
        names = "; ".join(f["name"] for f in simple)
        body["messages"][-1]["content"] += '\nReply with JSON {"name": tool, "arguments": {...}}. Tools: ' + names
        schema = {"anyOf": [call_schema(f) for f in simple]}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
    answer = json.loads(upstream("/v1/chat/completions", body))
    choice = answer["choices"][0]
    if wants_call:
        call = json.loads(choice["message"]["content"])
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "call_" + uuid.uuid4().hex[:8], "type": "function", "function": function}]}
        choice["finish_reason"] = "tool_calls"
    return answer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, body, kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send(upstream(self.path))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = complete(request)
        if not request.get("stream"):
            return self.send(json.dumps(answer).encode())
        choice = answer["choices"][0]
        event = lambda delta, finish: {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        events = [event(choice["message"], None), event({}, choice["finish_reason"]), {"choices": [], "usage": answer["usage"]}]
        lines = "".join("data: " + json.dumps(e) + "\n\n" for e in events) + "data: [DONE]\n\n"
        self.send(lines.encode(), "text/event-stream")


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
