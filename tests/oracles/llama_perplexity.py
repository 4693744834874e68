"""Perplexity by llama.cpp: a job as JSON on stdin, {model, tokens: [id, ...], context, chunks}; on the last line of stdout {perplexity, tokens}.
As its own program counts it: chunks of `context` tokens, each from an empty cache, judged on the second half. No BOS is put in.

Calls the C functions of llama.h that the package xllamacpp carries: its server tells no probabilities of a prompt.
"""
import array
import ctypes
import importlib.util
import json
import math
import sys

library = ctypes.CDLL(importlib.util.find_spec("xllamacpp.xllamacpp").origin)


class Params(ctypes.Structure):
    """Larger than the structures of any version; what is set of them is found by the defaults that llama.h gives it."""
    _fields_ = [("words", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
silent = Log(lambda level, text, data: None)
for name, result, arguments in [
        ("llama_model_default_params", Params, []), ("llama_context_default_params", Params, []),
        ("llama_model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, Params]),
        ("llama_init_from_model", ctypes.c_void_p, [ctypes.c_void_p, Params]),
        ("llama_model_get_vocab", ctypes.c_void_p, [ctypes.c_void_p]), ("llama_vocab_n_tokens", ctypes.c_int32, [ctypes.c_void_p]),
        ("llama_batch_init", Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        ("llama_decode", ctypes.c_int32, [ctypes.c_void_p, Batch]),
        ("llama_get_memory", ctypes.c_void_p, [ctypes.c_void_p]), ("llama_memory_clear", None, [ctypes.c_void_p, ctypes.c_bool]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32])]:
    getattr(library, name).restype, getattr(library, name).argtypes = result, arguments


def context_params(n_ctx):
    params = library.llama_context_default_params()
    if list(params.words[:4]) != [512, 2048, 512, 1]:
        sys.exit(f"llama_context_params: expected n_ctx, n_batch, n_ubatch, n_seq_max of 512, 2048, 512, 1 first, found {list(params.words[:4])}")
    params.words[0] = params.words[1] = params.words[2] = n_ctx
    for i in range(4, 8):  # n_threads and n_threads_batch: the two fours that come next; they wait for one another busily
        if params.words[i] == 4:
            params.words[i] = 1
    return params


def surprise(logits, n_vocab, token):
    values = array.array("f", ctypes.string_at(logits, 4 * n_vocab))
    most = max(values)
    return most + math.log(math.fsum(math.exp(v - most) for v in values)) - values[token]


def main():
    job = json.load(sys.stdin)
    library.llama_log_set(silent, None)
    library.llama_backend_init()
    model = library.llama_model_load_from_file(job["model"].encode(), library.llama_model_default_params())
    if not model:
        sys.exit(f"{job['model']}: llama.cpp does not load it")
    n_vocab = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    n = job["context"]
    context = library.llama_init_from_model(model, context_params(n))
    batch = library.llama_batch_init(n, 0, 1)
    surprises = []
    for chunk in range(job["chunks"]):
        tokens = job["tokens"][chunk * n:(chunk + 1) * n]
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch.n_tokens = n
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, int(i >= n // 2)
        if library.llama_decode(context, batch) != 0:
            sys.exit("llama_decode failed")
        surprises += [surprise(library.llama_get_logits_ith(context, i), n_vocab, tokens[i + 1]) for i in range(n // 2, n - 1)]
    print(json.dumps({"perplexity": math.exp(math.fsum(surprises) / len(surprises)), "tokens": len(surprises)}))


main()
