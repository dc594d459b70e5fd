"""Names of what a run folder holds. `docs/architecture.md` says what each is."""

from __future__ import annotations

import re

RECIPE = "recipe.yaml"
"""A folder that holds this file is a run folder."""
LOCK = "recipe.lock"
VOCABULARY = "vocabulary.json"
TOKENIZERS = "tokenizers"
WEIGHTS = "model.safetensors"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
JOURNAL = "journal.csv"
SKIPPED = "skipped_steps.jsonl"
SOURCES = "sources.json"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
PLACES = "places"

STEP_FOLDER = re.compile(r"step-(\d{8,})")
"""A checkpoint's folder in `CHECKPOINTS`."""
INDEX = "index.json"
"""In a checkpoint's folder; its presence marks the checkpoint as whole."""
