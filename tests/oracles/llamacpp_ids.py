"""Token ids of llama.cpp: llamacpp_ids.py VOCABULARY.gguf TEXTS.json IDS.json (a list of texts, a list of lists of ids).

Calls the C functions of llama.h that the package xllamacpp carries, since its Python classes load no vocabulary alone.
"""
import ctypes
import importlib.util
import json
import sys

library = ctypes.CDLL(importlib.util.find_spec("xllamacpp.xllamacpp").origin)


class ModelParams(ctypes.Structure):
    """llama_model_params, larger than any version of it: only flags are set, and these are found below."""
    _fields_ = [("raw", ctypes.c_uint8 * 512)]


library.llama_model_default_params.restype = ModelParams
library.llama_model_load_from_file.restype = ctypes.c_void_p
library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
library.llama_model_get_vocab.restype = ctypes.c_void_p
library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
library.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                   ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
silent = Log(lambda level, text, data: None)


def load(path):
    library.llama_log_set(silent, None)
    library.llama_backend_init()
    # vocab_only is the first of the flags at the structure's end; where these begin differs between versions (64 and
    # 72 bytes so far). With another flag set instead, a file without weights does not load.
    for at in (72, 64, 80, 88):
        params = library.llama_model_default_params()
        params.raw[at] = 1
        model = library.llama_model_load_from_file(path.encode(), params)
        if model:
            return library.llama_model_get_vocab(model)
    sys.exit(f"{path}: llama.cpp loads no vocabulary of it")


def main():
    vocabulary, texts, ids = sys.argv[1:]
    vocab = load(vocabulary)
    result = []
    with open(texts, encoding="utf-8") as file:
        for text in json.load(file):
            data = text.encode()
            room = len(data) + 16
            found = (ctypes.c_int32 * room)()
            n = library.llama_tokenize(vocab, data, len(data), found, room, False, False)
            result.append(list(found[:n]))
    with open(ids, "w", encoding="utf-8") as file:
        json.dump(result, file)


main()
