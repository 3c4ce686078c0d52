#!/usr/bin/env python3
"""A streamgate agent: repeats the prompt word by word; of a question it first asks how to say it."""
import json, queue, sys, threading

commands, interrupted = queue.Queue(), threading.Event()

def send(**line):
    print(json.dumps(line), flush=True)

def listen():  # A thread of its own hears interrupts while a turn is at work.
    for line in sys.stdin:
        command = json.loads(line)
        if command["type"] == "turn":
            interrupted.clear()
        elif command["type"] == "interrupt":
            interrupted.set()
        commands.put(command)
    commands.put({"type": "closed"})  # Wakes an open question,
    commands.put(None)  # and this ends the agent after its turn.

def work(prompt):
    if prompt.endswith("?"):
        how = {"question": "How shall I say it?", "options": [{"label": "loud"}, {"label": "quiet"}]}
        send(type="tool_use", id="how", tool="AskUserQuestion", input={"questions": [how]})
        reply = commands.get()
        answer = reply.get("answer", {}).get(how["question"], "no answer")
        send(type="tool_result", id="how", output=answer, is_error=reply["type"] != "answer")
        prompt = prompt.upper() if answer == "loud" else prompt.lower()
    for word in prompt.split():
        if interrupted.wait(0.02):
            return "interrupted"
        send(type="text", text=word + " ")
    return "interrupted" if interrupted.is_set() else "end_turn"

threading.Thread(target=listen, daemon=True).start()
for command in iter(commands.get, None):
    if command["type"] == "turn":
        words = len(command["prompt"].split())
        send(type="done", stop_reason=work(command["prompt"]), usage={"input_tokens": words, "output_tokens": words})
