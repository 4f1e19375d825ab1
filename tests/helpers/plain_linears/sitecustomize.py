"""Keeps vLLM from packing linear weights on a CPU, in its own processes, which do not know what the driver has set."""

import os

if os.environ.get("LINEARS") == "plain":
    import vllm._custom_ops

    vllm._custom_ops._supports_onednn = False
