"""llama.cpp's greedy tokens: a job as JSON on stdin, {model, adapter or "", prompts: [[id, ...]], n_predict}; on the last line of stdout
[[{id, alternatives: [[id, logprob], ...]}, ...] for each prompt], the likeliest alternatives first."""
import json
import sys

import xllamacpp

job = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path = job["model"]
params.n_ctx = 512
params.n_parallel = 1
params.warmup = False
params.verbosity = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # its threads wait for one another busily, which beside other work takes minutes
if job["adapter"]:
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["adapter"], 1.0)]
server = xllamacpp.Server(params)

answers = []
for prompt in job["prompts"]:
    reply = server.handle_completions({
        "prompt": prompt, "n_predict": job["n_predict"], "temperature": 0, "n_probs": 20, "cache_prompt": False, "ignore_eos": True})
    answers.append([{"id": token["id"], "alternatives": [[other["id"], other["logprob"]] for other in token["top_logprobs"]]}
                    for token in reply["choices"][0]["logprobs"]["content"]])
print(json.dumps(answers))
