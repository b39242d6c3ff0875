"""An OpenAI-compatible server in a thread, whose answers are a tiny model's: as much of vLLM, llama.cpp or others as a test wants."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

OPENAI = {"model", "prompt", "max_tokens", "temperature", "top_p", "logprobs", "echo", "seed"}


@dataclass
class Server:
    """What it is like, and what it was asked."""

    model: object
    tokenizer: object
    names: list = field(default_factory=lambda: ["tiny"])
    owner: str = "vllm"
    version: str | None = "9.9"
    size: int | None = 1024
    echoes: bool = True  # log-probabilities of a prompt by echo
    prompt_logprobs: bool = False  # by vLLM's own field
    logprobs: bool = True
    ids_back: str | None = "token_ids"  # or "content", as llama.cpp tells them
    takes_ids: bool = True
    takes_extras: bool = True
    adds: int = 0  # tokens that it puts before a prompt
    counts: bool = True  # the tokens that it has said
    shift: int = 0  # places by which its log-probabilities of a prompt are off
    reads: object = None  # another tokenizer than the model's, for text
    key: str | None = None
    fails: list = field(default_factory=list)  # (status, headers, body), one a request, before it answers
    wrong: dict = field(default_factory=dict)  # put into each completion
    raw: bytes | None = None  # in place of any completion
    ends: set = field(default_factory=set)  # beside the tokenizer's own end
    asked: list = field(default_factory=list)
    keys: set = field(default_factory=set)
    url: str = ""
    _lock: object = field(default_factory=threading.Lock)

    @torch.no_grad()
    def logits(self, ids):
        with self._lock:
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def go_on(self, ids, body):
        """Greedy, or drawn with the seed alone."""
        said, logprobs = [], []
        generator = torch.Generator().manual_seed(body.get("seed") or 0)
        while len(said) < body["max_tokens"]:
            now = self.logits([*ids, *said])[-1]
            heat = body.get("temperature", 1.0)
            token = int(now.argmax() if heat == 0 else (now / heat).softmax(-1).multinomial(1, generator=generator))
            said.append(token)
            logprobs.append(float(now[token]))
            if token in self.ends | {self.tokenizer.eos_token_id}:
                break
        return said, logprobs

    def complete(self, body):
        prompt = body["prompt"]
        ids = list(prompt) if isinstance(prompt, list) else (self.reads or self.tokenizer)(prompt)["input_ids"]
        ids = [0] * self.adds + ids
        if self.size and len(ids) + body["max_tokens"] > self.size:
            return 400, {"error": {"message": f"maximum context length is {self.size} tokens"}}
        said, logprobs = self.go_on(ids, body)
        ended = said[-1] in self.ends | {self.tokenizer.eos_token_id}
        text = self.tokenizer.decode(said[:-1] if ended else said, skip_special_tokens=False)
        choice = {"index": 0, "text": text, "finish_reason": "stop" if ended else "length", "logprobs": None}
        if self.ids_back == "token_ids" and body.get("return_token_ids"):
            choice |= {"token_ids": said, "prompt_token_ids": ids}
        wants = self.logprobs and body.get("logprobs")
        if wants and self.ids_back == "content":
            choice["logprobs"] = {"content": [{"id": t, "logprob": p} for t, p in zip(said, logprobs, strict=True)]}
        elif wants:
            choice["logprobs"] = {"token_logprobs": logprobs, "tokens": ["?"] * len(said)}
        if self.echoes and body.get("echo") and wants:
            choice["logprobs"] = {"token_logprobs": [*self.read(ids), *logprobs]}
        if self.prompt_logprobs and "prompt_logprobs" in body:
            read = self.read(ids)
            choice["prompt_logprobs"] = [
                None,
                *({str(t): {"logprob": p}} for t, p in zip(ids[1:], read[1:], strict=True)),
            ]
        usage = {"prompt_tokens": len(ids)} | ({"completion_tokens": len(said)} if self.counts else {})
        return 200, {"choices": [choice | self.wrong], "usage": usage, "system_fingerprint": "fp"}

    def read(self, ids):
        rows = self.logits(ids)
        found = [None, *(float(rows[i - 1, token]) for i, token in enumerate(ids) if i)]
        return found[self.shift :] + found[1 : 1 + self.shift]

    def answer(self, path, body, authorization):
        self.keys.add(authorization)
        if self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": {"message": f"wrong key {authorization} \x1b[31m"}}
        if path == "/v1/models":
            about = {"owned_by": self.owner, "max_model_len": self.size}
            return 200, {"data": [{"id": name, **about} for name in self.names]}
        if path == "/version" and self.version:
            return 200, {"version": self.version}
        if path != "/v1/completions" or body is None:
            return 404, {"error": {"message": "no such path"}}
        self.asked.append(body)
        if body["model"] not in self.names:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if not self.takes_extras and set(body) - OPENAI:
            return 422, {"detail": [{"msg": f"extra fields: {sorted(set(body) - OPENAI)}"}]}
        if not self.takes_ids and not isinstance(body["prompt"], str):
            return 400, {"error": {"message": "prompt must be a string"}}
        return self.complete(body)


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "tiny", ""

    def do_GET(self):
        self._respond(None)

    def do_POST(self):
        self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _respond(self, body):
        ours = self.server.ours
        headers = {}
        if body is not None and ours.fails:
            status, headers, out = ours.fails.pop(0)
            if status is None:  # the line goes dead
                self.connection.close()
                return
        else:
            status, told = ours.answer(self.path, body, self.headers.get("Authorization"))
            out = ours.raw if ours.raw is not None and body is not None and status == 200 else json.dumps(told).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(out))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *args):
        pass


@contextmanager
def serving(model, tokenizer, **like):
    """A server for the time of the block."""
    ours = Server(model, tokenizer, **like)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.ours, http.daemon_threads = ours, True
    ours.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield ours
    finally:
        http.shutdown()
        http.server_close()
