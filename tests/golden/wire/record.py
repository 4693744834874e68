#!/usr/bin/env python3
"""Records what an edge and a cloud say to each other: real daemons with a synthetic model, a proxy between them.

  python3 -m venv V && V/bin/pip install grpcio
  V/bin/python tests/golden/wire/record.py BIN_DIR > tests/golden/wire/NAME.txt

BIN_DIR has updraft-edge, updraft-cloud and updraft, of the version that is to be recorded; UPDRAFT_SYNTH may name another `updraft`
for the model. With the schema of that version beside it (NAME.proto), tests/cloud/service/versions_test.cc and
tests/edge/agent/versions_test.cc play the recording against the tree as it is now.

Format, a line each: "call NAME", "request METHOD HEX", "response HEX"..., "status CODE". Times and loads are as they were.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc

TURN_ON = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello there"}]
GREEDY = {"messages": TURN_ON, "max_tokens": 8, "temperature": 0}
# Name, path of HTTP, body, headers. All go up: the edge keeps nothing.
ASKED = [
    ("conversation", "chat/completions", GREEDY, {}),
    ("evidence", "chat/completions", {**GREEDY, "logprobs": True, "max_tokens": 4}, {}),
    ("sampled", "chat/completions", {**GREEDY, "temperature": 0.8, "top_p": 0.9, "seed": 11}, {}),
    ("stop", "chat/completions", {**GREEDY, "stop": ["zzz", "qqq"], "max_tokens": 6}, {}),
    ("upstream_only", "chat/completions", GREEDY, {"X-Updraft-Tier": "upstream"}),
    ("deadline", "chat/completions", GREEDY, {"X-Updraft-Deadline-Ms": "60000"}),
    ("named", "chat/completions", {**GREEDY, "stream": True}, {"X-Request-Id": "recorded-7"}),
    ("prompt", "completions", {"prompt": "hello there", "max_tokens": 6, "temperature": 0}, {}),
]


class Proxy(grpc.GenericRpcHandler):
    """Passes calls on as bytes and keeps them."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.lock, self.lines, self.name, self.counts = threading.Lock(), [], "start", {}

    def service(self, details):
        if details.method.endswith("/GetStatus"):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self.status(details.method, request))
        return grpc.unary_stream_rpc_method_handler(lambda request, context: self.stream(details.method, request, context))

    def keep(self, method, request, responses, code):
        with self.lock:
            name = "probe" if method.endswith("/GetStatus") else self.name
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == "probe" and self.counts[name] > 1:
                return
            self.lines += [f"call {name}", f"request {method} {request.hex()}".rstrip()]
            self.lines += [f"response {response.hex()}" for response in responses] + [f"status {code.name}"]

    def status(self, method, request):
        response = self.channel.unary_unary(method)(request, timeout=10)
        self.keep(method, request, [response], grpc.StatusCode.OK)
        return response

    def stream(self, method, request, context):
        left = context.time_remaining()
        call = self.channel.unary_stream(method)(request, timeout=min(left, 60) if left else 60)
        responses = []
        for response in call:
            responses.append(response)
            yield response
        self.keep(method, request, responses, call.code())


def start(args, folder):
    ports = os.path.join(folder, os.path.basename(args[0]) + ".ports")
    if os.path.exists(ports):
        os.remove(ports)
    process = subprocess.Popen(args + ["--port-file", ports, "--log-level", "warn"])
    for _ in range(600):
        if os.path.exists(ports) and open(ports).read().strip():
            return process, open(ports).read().split()
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"{args[0]} does not start")


def ask(port, path, body, headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def main():
    bin_dir = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.gguf")
        subprocess.check_call([os.environ.get("UPDRAFT_SYNTH", f"{bin_dir}/updraft"), "synth", "--shape", "tiny-qwen2", "--type", "f32",
                               "--seed", "7", "--out", model], stdout=sys.stderr)
        cloud, cloud_ports = start([f"{bin_dir}/updraft-cloud", "--model", model, "--listen", "127.0.0.1:0", "--threads", "1"], folder)
        proxy = Proxy(f"127.0.0.1:{cloud_ports[0]}")
        server = grpc.server(futures.ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((proxy,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            # The same tokenizer and template: token ids travel. Another template: text does.
            for kind, flags in (("ids", []), ("text", ["--chat-template", "llama2"])):
                edge, edge_ports = start([f"{bin_dir}/updraft-edge", "--model", model, "--listen", "127.0.0.1:0", "--http-listen",
                                          "127.0.0.1:0", "--threads", "1", "--upstream", f"127.0.0.1:{port}", "--confidence-threshold", "1"]
                                         + flags, folder)
                time.sleep(3)  # it has asked who is above
                for name, path, body, headers in ASKED:
                    proxy.name = f"{name}_{kind}"
                    ask(edge_ports[1], path, body, headers)
                edge.terminate()
                edge.wait()
        finally:
            cloud.terminate()
            server.stop(0)
    print("\n".join(proxy.lines))


main()
