"""Serves a GGUF file by llama.cpp's own HTTP server, which PyPI's ``xllamacpp`` carries as a library.

Each of four requests at a time has a context of 512 tokens, that of the demo's models.

    pip install xllamacpp
    python studies/served/llamacpp.py MODEL.gguf 8080
"""

from __future__ import annotations

import signal
import sys

import xllamacpp

SLOTS, CONTEXT = 4, 512


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path, params.port = sys.argv[1], int(sys.argv[2])
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
