#!/usr/bin/env python3
"""mock_llm.py - a scriptable, offline stand-in for LLM APIs (stdlib only).

Endpoints (all on one port, so one base URL serves every agent):
  POST /v1/messages                         Anthropic Messages (SSE or JSON)
  POST /v1/messages/count_tokens            Anthropic token counting
  POST /v1/chat/completions                 OpenAI Chat Completions (SSE or JSON)
  POST /v1/responses                        OpenAI Responses (SSE or JSON)
  POST /v1beta/models/<m>:generateContent | :streamGenerateContent   Gemini
  GET  /v1/models                           a small model list
  GET  /_mock/health | /_mock/requests | POST /_mock/reset           for tests
OpenAI/Anthropic paths also work without the leading /v1.

The reply is scripted by the *user prompt itself*.  Every line that starts with
a keyword is one step = one model response; the step to play is derived from the
conversation (how many assistant messages follow that prompt), so the server is
stateless and survives agent restarts.  A line starting with '+' adds its block
to the same response as the line before (text + tool, or parallel tools).

  TEXT: some words                  stream text
  SLOW: 200 some words              stream text, 200 ms between words
  HOLD: /a/file | words | more      stream the words, and more when the file exists
  THINK: words                      thinking block (Anthropic) / skipped elsewhere
  TOOL: Name {"json":"input"}       call exactly this tool
  SH: command                       call the agent's own shell tool (name adapted)
  WRITE: path | content             call the agent's own file-writing tool
  ASK: Question? | opt A | opt B    call the agent's own ask-the-user tool
  LOOP: 5 command                   the next 5 responses are each SH: command
  ECHO:                             text quoting the latest tool results (proof)
  HISTORY:                          text listing all real user prompts seen (proof)
  ERROR: 529                        HTTP error status, every time
  ERROR: 500 x2                     HTTP error for the first 2 tries, then go on
  DROP: words                       stream the words, then cut the connection
  HANG: 30                          send headers, then nothing for 30 s
  USAGE: 1234 56                    (not a step) input/output tokens to report

When the steps run out after a tool call: 'Done. Tool results: ...'.
No keyword at all: 'Mock reply to: <prompt>'.  A prompt that is just
'continue' (see --continue-regex) goes on with the script before it.
"""
import argparse
import hashlib
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEYWORDS = ("TEXT", "SLOW", "HOLD", "THINK", "TOOL", "SH", "WRITE", "ASK", "LOOP", "ECHO",
            "HISTORY", "ERROR", "DROP", "HANG", "USAGE")
LINE = re.compile(r"^\s*(\+?)(" + "|".join(KEYWORDS) + r"):[ \t]?(.*)$")
# Text that agents inject in user messages and that no human typed.
INJECTED = re.compile(
    r"^\s*(<(system-reminder|environment_context|user_instructions|INSTRUCTIONS|permissions|"
    r"environment_details|context|apps_instructions|skills_instructions|collaboration_mode|"
    r"turn_aborted|local-command|session_context)"
    r"|\[Request interrupted|# AGENTS\.md|This is the (Gemini|Qwen)|"
    r"Continue from where you left off\.$|The following tools were executed by the user)", re.I)
# Assistant text that agents make up (no model call behind it).
SYNTHETIC = re.compile(r"^\s*No response requested\.\s*$")
CONTINUE = re.compile(r"^\s*(please )?(continue|go on)\b.{0,200}$", re.I | re.S)
CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "cookie")
OPTS = argparse.Namespace(delay_ms=2, log=None, continue_re=CONTINUE)
LOCK = threading.Lock()
REQUESTS = []      # parsed requests, newest last
FAIL_COUNTS = {}   # for 'ERROR: n xK'
SEQ = [0]


# ------------------------------------------------------------------ script ---

def parse_script(text):
    """-> (steps, usage); a step is a list of (keyword, argument)."""
    steps, usage = [], None
    for line in text.splitlines():
        m = LINE.match(line)
        if not m:
            continue
        plus, key, arg = m.group(1), m.group(2), m.group(3).strip()
        if key == "USAGE":
            nums = [int(n) for n in re.findall(r"\d+", arg)]
            usage = (nums + [1, 1])[:2]
        elif key == "LOOP":
            count, _, cmd = arg.partition(" ")
            steps += [[("SH", cmd or "true")] for _ in range(int(count or 1))]
        elif plus and steps:
            steps[-1].append((key, arg))
        else:
            steps.append([(key, arg)])
    return steps, usage


class Conversation:
    """The provider-neutral view: events in order, plus the declared tools."""

    def __init__(self, model, tools, system):
        self.model, self.tools, self.system = model, tools, system
        self.events = []   # (kind, value): user | assistant | result

    def add(self, kind, value):
        self.events.append((kind, value))

    def prompts(self):
        return [(i, v) for i, (k, v) in enumerate(self.events)
                if k == "user" and v.strip() and not INJECTED.match(v)]

    def current(self):
        """-> (prompt, assistant messages since, tool results since the last one)."""
        prompts = self.prompts()
        if not prompts:
            return "", 0, []
        at, text = prompts[-1]
        if OPTS.continue_re.match(text) and not parse_script(text)[0]:
            for i, v in reversed(prompts[:-1]):
                if parse_script(v)[0]:
                    at, text = i, v
                    break
        after = self.events[at + 1:]
        done = sum(1 for k, v in after if k == "assistant" and not SYNTHETIC.match(v))
        results = []
        for kind, value in reversed(after):
            if kind == "result":
                results.insert(0, value)
            elif kind == "assistant":
                break
        return text, done, results


def tool_names(conv):
    return [t["name"] for t in conv.tools]


def schema_of(conv, name):
    return next((t.get("schema") or {} for t in conv.tools if t["name"] == name), {})


def pick(conv, *wanted):
    names = tool_names(conv)
    return next((w for w in wanted if w in names), wanted[0])


def shell_call(conv, cmd):
    name = pick(conv, "Bash", "bash", "run_shell_command", "exec_command", "shell_command",
                "shell", "container.exec", "execute_bash", "terminal", "developer__shell")
    props = schema_of(conv, name).get("properties", {})
    if "cmd" in props:
        return name, {"cmd": cmd}
    if props.get("command", {}).get("type") == "array":
        return name, {"command": ["bash", "-lc", cmd]}
    args = {"command": cmd}
    if "description" in props:
        args["description"] = "Run " + cmd[:40]
    if "is_background" in props:
        args["is_background"] = False
    return name, args


def write_call(conv, arg):
    path, _, content = (p.strip() for p in arg.partition("|"))
    name = pick(conv, "Write", "write", "write_file", "apply_patch", "developer__text_editor")
    props = schema_of(conv, name).get("properties", {})
    if name == "apply_patch":
        body = "\n".join("+" + ln for ln in content.splitlines())
        patch = "*** Begin Patch\n*** Add File: %s\n%s\n*** End Patch" % (path, body)
        return name, {"patchText" if "patchText" in props else "input": patch}
    key = next((k for k in ("file_path", "filePath", "path") if k in props), "file_path")
    return name, {key: path, "content": content}


def ask_call(conv, arg):
    parts = [p.strip() for p in arg.split("|")]
    question, options = parts[0], parts[1:] or ["Yes", "No"]
    name = pick(conv, "AskUserQuestion", "question", "ask_user", "ask_user_question",
                "request_user_input")
    item = {"question": question, "header": "Choice",
            "options": [{"label": o, "description": "Choose " + o} for o in options]}
    if name == "AskUserQuestion" or name == "ask_user_question":
        item["multiSelect"] = False
    if name == "ask_user":
        item.update(type="choice", multiSelect=False)
    if name == "request_user_input":
        item["id"] = "q1"
    return name, {"questions": [item]}


def plan(conv):
    """-> dict(blocks=[...], usage=(in,out)) or dict(error=status) for the next reply."""
    prompt, done, results = conv.current()
    steps, usage = parse_script(prompt)
    # 'ERROR: n xK' steps make no assistant message: skip those already spent.
    index, spent = 0, 0
    for index, step in enumerate(steps):
        if step[0][0] == "ERROR" and "x" in step[0][1]:
            key = hashlib.sha1(("%d|%s" % (index, prompt)).encode()).hexdigest()
            limit = int(step[0][1].rsplit("x", 1)[1])
            if index - spent > done:
                break
            with LOCK:
                used = FAIL_COUNTS.get(key, 0)
                if index - spent == done and used < limit:
                    FAIL_COUNTS[key] = used + 1
                    return {"error": int(re.findall(r"\d+", step[0][1])[0])}
            spent += 1
    steps = [s for s in steps if not (s[0][0] == "ERROR" and "x" in s[0][1])]
    blocks = []
    if not steps:
        if results:
            blocks.append(text_block("Done. Tool results: " + " || ".join(results)))
        else:
            blocks.append(text_block("Mock reply to: " + prompt.strip()[:200]))
    elif done >= len(steps):
        tail = " || ".join(r[:300] for r in results)
        blocks.append(text_block("Done. Tool results: " + tail if results else "Done."))
    else:
        for key, arg in steps[done]:
            if key == "ERROR":
                return {"error": int(re.findall(r"\d+", arg)[0])}
            if key in ("TEXT", "DROP"):
                blocks.append(dict(text_block(arg), drop=(key == "DROP")))
            elif key == "SLOW":
                ms, _, words = arg.partition(" ")
                blocks.append(dict(text_block(words), delay=int(ms) / 1000.0))
            elif key == "HOLD":
                path, before, after = (part.strip() for part in arg.split("|"))
                blocks.append(dict(text_block(before + " " + after), hold=(path, before + " ")))
            elif key == "THINK":
                blocks.append({"kind": "think", "text": arg})
            elif key == "HANG":
                blocks.append({"kind": "hang", "seconds": float(arg or 60)})
            elif key == "ECHO":
                blocks.append(text_block("I saw these tool results: " + json.dumps(results)))
            elif key == "HISTORY":
                seen = [v.strip().splitlines()[0][:80] for _, v in conv.prompts()]
                blocks.append(text_block("User prompts so far: " + json.dumps(seen)))
            else:
                if key == "TOOL":
                    name, _, raw = arg.partition(" ")
                    name, args = name, json.loads(raw or "{}")
                else:
                    name, args = {"SH": shell_call, "WRITE": write_call,
                                  "ASK": ask_call}[key](conv, arg)
                blocks.append({"kind": "tool", "name": name, "input": args})
    if usage is None:
        out = sum(len(b.get("text", "").split()) if b["kind"] != "tool" else 20 for b in blocks)
        usage = (1000, max(1, out))
    return {"blocks": blocks, "usage": usage}


def text_block(text):
    return {"kind": "text", "text": text}


def words(text):
    return re.findall(r"\S+\s*|\s+", text)


def new_id(prefix):
    with LOCK:
        SEQ[0] += 1
        return "%s%06d%s" % (prefix, SEQ[0], hashlib.sha1(str(time.time()).encode()).hexdigest()[:10])


# ----------------------------------------------------------- request parsing ---

def as_text(value):
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(as_text(v) for v in value)
    if isinstance(value, dict):
        for key in ("text", "content", "output", "response"):
            if key in value:
                return as_text(value[key])
        return json.dumps(value)
    return "" if value is None else str(value)


def from_anthropic(body):
    tools = [{"name": t.get("name", ""), "schema": t.get("input_schema")} for t in body.get("tools") or []]
    conv = Conversation(body.get("model"), tools, as_text(body.get("system")))
    for msg in body.get("messages", []):
        content = msg.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if msg.get("role") == "assistant":
            conv.add("assistant", as_text(content))
            continue
        for block in content:
            if block.get("type") == "tool_result":
                mark = "[is_error] " if block.get("is_error") else ""
                conv.add("result", mark + as_text(block.get("content")))
            elif block.get("type") == "text" and msg.get("role") == "user":
                conv.add("user", block.get("text", ""))
    return conv


def from_chat(body):
    tools = [{"name": t.get("function", {}).get("name", ""), "schema": t.get("function", {}).get("parameters")}
             for t in body.get("tools") or []]
    system = "\n".join(as_text(m.get("content")) for m in body.get("messages", [])
                       if m.get("role") in ("system", "developer"))
    conv = Conversation(body.get("model"), tools, system)
    for msg in body.get("messages", []):
        if msg["role"] == "assistant":
            conv.add("assistant", as_text(msg.get("content")))
        elif msg["role"] == "tool":
            conv.add("result", as_text(msg.get("content")))
        elif msg["role"] == "user":
            content = msg.get("content")
            for part in content if isinstance(content, list) else [content]:
                conv.add("user", as_text(part))
    return conv


def from_responses(body):
    tools = [{"name": t.get("name", t.get("type", "")), "schema": t.get("parameters")}
             for t in body.get("tools") or []]
    conv = Conversation(body.get("model"), tools, as_text(body.get("instructions")))
    items = body.get("input", [])
    if isinstance(items, str):
        items = [{"type": "message", "role": "user", "content": items}]
    open_reply = False   # a reply may be several items; count it once
    for item in items:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") == "user":
            open_reply = False
            content = item.get("content")
            for part in content if isinstance(content, list) else [content]:
                conv.add("user", as_text(part))
        elif kind.endswith("_output"):
            open_reply = False
            conv.add("result", as_text(item.get("output")))
        elif (kind == "message" and item.get("role") == "assistant") or kind.endswith("_call"):
            if not open_reply:
                conv.add("assistant", as_text(item.get("content")))
            open_reply = True
    return conv


def from_gemini(body, model):
    tools = []
    for group in body.get("tools") or []:
        for fn in group.get("functionDeclarations") or []:
            tools.append({"name": fn.get("name"),
                          "schema": fn.get("parametersJsonSchema") or fn.get("parameters")})
    conv = Conversation(model, tools, as_text((body.get("systemInstruction") or {}).get("parts")))
    for msg in body.get("contents", []):
        if msg.get("role") == "model":
            conv.add("assistant", "")
            continue
        for part in msg.get("parts", []):
            if "functionResponse" in part:
                conv.add("result", as_text(part["functionResponse"].get("response")))
            elif "text" in part:
                conv.add("user", part["text"])
    return conv


# ----------------------------------------------------------------- replying ---

class Cut(Exception):
    """Ends a stream abruptly."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mock-llm/1"

    def log_message(self, *_):
        pass

    # -- plumbing
    def send_json(self, status, obj, headers=()):
        data = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for k, v in headers:
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def open_sse(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def sse(self, obj, event=None):
        payload = obj if isinstance(obj, str) else json.dumps(obj)
        data = (("event: %s\n" % event) if event else "") + "data: %s\n\n" % payload
        raw = data.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()

    def close_sse(self):
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def pieces(self, block):
        if block["kind"] == "hang":
            time.sleep(block["seconds"])
            return
        path, before = block.get("hold", (None, ""))
        for piece in words(block["text"]):
            while path and not before and not os.path.exists(path):
                time.sleep(0.02)
            before = before[len(piece):]
            yield piece
            time.sleep(block.get("delay", OPTS.delay_ms / 1000.0))
        if block.get("drop"):
            raise Cut()

    # -- routing
    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/_mock/health":
            self.send_json(200, {"ok": True, "requests": len(REQUESTS)})
        elif path == "/_mock/requests":
            with LOCK:
                self.send_json(200, REQUESTS)
        elif path.endswith("/models"):
            self.send_json(200, {"object": "list", "data": [
                {"id": "mock-model", "object": "model", "type": "model", "owned_by": "mock",
                 "display_name": "Mock", "created": 0, "created_at": "2026-01-01T00:00:00Z"}]})
        else:
            self.send_json(404, {"error": {"type": "not_found_error", "message": "no such path"}})

    do_HEAD = do_GET

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.split("?")[0]
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        if path == "/_mock/reset":
            with LOCK:
                REQUESTS.clear()
                FAIL_COUNTS.clear()
            return self.send_json(200, {"ok": True})
        record(path, body, self.headers)
        if path.endswith("/messages/count_tokens"):
            return self.send_json(200, {"input_tokens": max(1, len(raw) // 4)})
        try:
            if path.endswith("/messages"):
                return self.reply(body, from_anthropic(body), self.render_anthropic, body.get("stream"))
            if path.endswith("/chat/completions"):
                return self.reply(body, from_chat(body), self.render_chat, body.get("stream"))
            if path.endswith("/responses"):
                return self.reply(body, from_responses(body), self.render_responses, body.get("stream"))
            m = re.search(r"/models/([^:/]+):(\w+)$", path)
            if m:
                if m.group(2) == "countTokens":
                    return self.send_json(200, {"totalTokens": max(1, len(raw) // 4)})
                return self.reply(body, from_gemini(body, m.group(1)), self.render_gemini,
                                  m.group(2) == "streamGenerateContent")
        except (Cut, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return None
        return self.send_json(404, {"error": {"type": "not_found_error", "message": "no such path"}})

    def reply(self, body, conv, render, stream):
        p = plan(conv)
        if "error" in p:
            return self.fail(p["error"])
        return render(body, p, bool(stream))

    def fail(self, status):
        kind = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(
                    status, "api_error")
        msg = {401: "invalid x-api-key", 529: "Overloaded", 429: "Rate limited"}.get(status, "Mock failure")
        headers = [("retry-after", "0")] if status in (429, 529) else []
        self.send_json(status, {"type": "error", "error": {"type": kind, "message": msg, "code": status}},
                       headers)

    # -- Anthropic Messages
    def render_anthropic(self, body, p, stream):
        (tin, tout), model = p["usage"], body.get("model", "mock-model")
        stop = "tool_use" if any(b["kind"] == "tool" for b in p["blocks"]) else "end_turn"
        msg = {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": model,
               "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": tin, "output_tokens": 1,
                         "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}
        if not stream:
            for b in p["blocks"]:
                if b["kind"] == "tool":
                    msg["content"].append({"type": "tool_use", "id": new_id("toolu_"),
                                           "name": b["name"], "input": b["input"]})
                elif b["kind"] == "text":
                    msg["content"].append({"type": "text", "text": "".join(self.pieces(b))})
            msg.update(stop_reason=stop)
            msg["usage"]["output_tokens"] = tout
            return self.send_json(200, msg)
        self.open_sse()

        def ev(kind, **kw):
            self.sse(dict(type=kind, **kw), kind)

        ev("message_start", message=msg)
        for i, b in enumerate(p["blocks"]):
            if b["kind"] == "hang":
                list(self.pieces(b))
            elif b["kind"] == "tool":
                ev("content_block_start", index=i, content_block={
                    "type": "tool_use", "id": new_id("toolu_"), "name": b["name"], "input": {}})
                raw = json.dumps(b["input"])
                for n in range(0, len(raw), 24):
                    ev("content_block_delta", index=i, delta={
                        "type": "input_json_delta", "partial_json": raw[n:n + 24]})
                ev("content_block_stop", index=i)
            elif b["kind"] == "think":
                ev("content_block_start", index=i, content_block={
                    "type": "thinking", "thinking": "", "signature": ""})
                for piece in self.pieces(b):
                    ev("content_block_delta", index=i, delta={"type": "thinking_delta", "thinking": piece})
                ev("content_block_delta", index=i, delta={"type": "signature_delta", "signature": "bW9jaw=="})
                ev("content_block_stop", index=i)
            else:
                ev("content_block_start", index=i, content_block={"type": "text", "text": ""})
                for piece in self.pieces(b):
                    ev("content_block_delta", index=i, delta={"type": "text_delta", "text": piece})
                ev("content_block_stop", index=i)
        ev("message_delta", delta={"stop_reason": stop, "stop_sequence": None},
           usage={"output_tokens": tout})
        ev("message_stop")
        self.close_sse()

    # -- OpenAI Chat Completions
    def render_chat(self, body, p, stream):
        (tin, tout), model = p["usage"], body.get("model", "mock-model")
        base = {"id": new_id("chatcmpl-"), "created": int(time.time()), "model": model}
        usage = {"prompt_tokens": tin, "completion_tokens": tout, "total_tokens": tin + tout}
        tools = [b for b in p["blocks"] if b["kind"] == "tool"]
        finish = "tool_calls" if tools else "stop"
        calls = [{"index": i, "id": new_id("call_"), "type": "function",
                  "function": {"name": b["name"], "arguments": json.dumps(b["input"])}}
                 for i, b in enumerate(tools)]
        if not stream:
            text = "".join("".join(self.pieces(b)) for b in p["blocks"] if b["kind"] == "text")
            msg = {"role": "assistant", "content": text or None}
            if calls:
                msg["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in calls]
            return self.send_json(200, dict(base, object="chat.completion", usage=usage, choices=[
                {"index": 0, "message": msg, "finish_reason": finish}]))
        self.open_sse()

        def chunk(delta, reason=None):
            self.sse(dict(base, object="chat.completion.chunk", choices=[
                {"index": 0, "delta": delta, "finish_reason": reason}]))

        chunk({"role": "assistant", "content": ""})
        for b in p["blocks"]:
            if b["kind"] in ("text", "hang"):
                for piece in self.pieces(b):
                    chunk({"content": piece})
        for c in calls:
            chunk({"tool_calls": [c]})
        chunk({}, finish)
        self.sse(dict(base, object="chat.completion.chunk", choices=[], usage=usage))
        self.sse("[DONE]")
        self.close_sse()

    # -- OpenAI Responses
    def render_responses(self, body, p, stream):
        tin, tout = p["usage"]
        rid, output, seq = new_id("resp_"), [], [0]
        resp = {"id": rid, "object": "response", "created_at": int(time.time()),
                "model": body.get("model", "mock-model"), "status": "in_progress", "output": []}
        custom = {t.get("name") for t in body.get("tools") or [] if t.get("type") == "custom"}

        def ev(kind, **kw):
            if stream:
                self.sse(dict(type=kind, sequence_number=seq[0], **kw), kind)
            seq[0] += 1

        if stream:
            self.open_sse()
        ev("response.created", response=resp)
        for b in p["blocks"]:
            at = len(output)
            if b["kind"] == "hang":
                list(self.pieces(b))
            elif b["kind"] == "tool":
                item = {"id": new_id("fc_"), "call_id": new_id("call_"), "name": b["name"],
                        "status": "completed"}
                if b["name"] in custom:
                    item.update(type="custom_tool_call", input=b["input"].get("input", ""))
                else:
                    item.update(type="function_call", arguments=json.dumps(b["input"]))
                ev("response.output_item.added", output_index=at, item=dict(item, status="in_progress"))
                ev("response.output_item.done", output_index=at, item=item)
                output.append(item)
            elif b["kind"] == "text":
                mid, text = new_id("msg_"), ""
                ev("response.output_item.added", output_index=at, item={
                    "type": "message", "id": mid, "role": "assistant", "status": "in_progress", "content": []})
                ev("response.content_part.added", item_id=mid, output_index=at, content_index=0,
                   part={"type": "output_text", "text": "", "annotations": []})
                for piece in self.pieces(b):
                    text += piece
                    ev("response.output_text.delta", item_id=mid, output_index=at, content_index=0, delta=piece)
                ev("response.output_text.done", item_id=mid, output_index=at, content_index=0, text=text)
                part = {"type": "output_text", "text": text, "annotations": []}
                ev("response.content_part.done", item_id=mid, output_index=at, content_index=0, part=part)
                item = {"type": "message", "id": mid, "role": "assistant", "status": "completed",
                        "content": [part]}
                ev("response.output_item.done", output_index=at, item=item)
                output.append(item)
        resp = dict(resp, status="completed", output=output, usage={
            "input_tokens": tin, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tout, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tin + tout})
        ev("response.completed", response=resp)
        if not stream:
            return self.send_json(200, resp)
        self.close_sse()

    # -- Gemini
    def render_gemini(self, body, p, stream):
        tin, tout = p["usage"]
        usage = {"promptTokenCount": tin, "candidatesTokenCount": tout, "totalTokenCount": tin + tout}
        schema = (body.get("generationConfig") or {}).get("responseJsonSchema")

        def chunk(parts, finish=None):
            cand = {"index": 0, "content": {"role": "model", "parts": parts}}
            if finish:
                cand["finishReason"] = finish
            return {"candidates": [cand], "usageMetadata": usage, "modelVersion": "mock-model"}

        if not stream:
            text = "".join("".join(self.pieces(b)) for b in p["blocks"] if b["kind"] == "text")
            if schema:
                text = json.dumps(stub(schema))
            parts = [{"text": text}] if text else []
            parts += [{"functionCall": {"name": b["name"], "args": b["input"]}}
                      for b in p["blocks"] if b["kind"] == "tool"]
            return self.send_json(200, chunk(parts, "STOP"))
        self.open_sse()
        for b in p["blocks"]:
            if b["kind"] == "tool":
                self.sse(chunk([{"functionCall": {"name": b["name"], "args": b["input"]}}]))
            elif b["kind"] in ("text", "hang"):
                for piece in self.pieces(b):
                    self.sse(chunk([{"text": piece}]))
        self.sse(chunk([{"text": ""}], "STOP"))
        self.close_sse()


def stub(schema):
    """A minimal value that satisfies a JSON schema (for structured side requests)."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {k: stub(v) for k, v in (schema.get("properties") or {}).items()}
    return {"string": "mock", "number": 1, "integer": 1, "boolean": False, "array": []}.get(kind)


def record(path, body, headers):
    entry = {"n": len(REQUESTS) + 1, "path": path, "auth": bool(
        headers.get("authorization") or headers.get("x-api-key") or headers.get("x-goog-api-key")),
        "credentials": {name: headers[name] for name in CREDENTIALS if headers.get(name)},
        "user_agent": headers.get("user-agent", ""), "body": body}
    with LOCK:
        REQUESTS.append(entry)
        if OPTS.log:
            with open(OPTS.log, "a") as fh:
                fh.write(json.dumps(entry) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument("--port", type=int, default=8899)
    ap.add_argument("--log", help="append every request as a JSON line to this file")
    ap.add_argument("--delay-ms", type=float, default=2, help="pause between streamed words")
    ap.add_argument("--continue-regex", help="prompts matching this go on with the script before them")
    args = ap.parse_args()
    OPTS.delay_ms, OPTS.log = args.delay_ms, args.log
    if args.continue_regex:
        OPTS.continue_re = re.compile(args.continue_regex, re.I | re.S)
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    server.daemon_threads = True
    print("mock_llm listening on http://%s:%d" % server.server_address[:2], file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
