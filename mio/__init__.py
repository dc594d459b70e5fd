"""mio: a Lightning-based plugin framework for any-to-any multimodal foundation models.

A plugin needs no more than this module: the hook marker, the values of the contract, and the errors.
Importing it does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mio import media, networks
from mio.core.contract.adapters import Adapter
from mio.core.contract.automata import Arc, Automaton
from mio.core.contract.checker import read_options
from mio.core.contract.controls import Control, ControlToken, ControlTokens, Turn
from mio.core.contract.encoders import Encoder, EncoderInput
from mio.core.contract.heads import Condition, Head, HeadItems, Sampling
from mio.core.contract.hookspecs import hookimpl
from mio.core.contract.layouts import CodeRows, ModelLayout
from mio.core.contract.loggers import LoggedRun, LoggedStep, Logger, Sample
from mio.core.contract.ranges import number, one_of
from mio.core.contract.sessions import Segmenter, SessionPolicy, Stream, Synthesiser, TurnDetection, Utterance
from mio.core.contract.streams import SpanDecoder, Streamable
from mio.core.contract.tasks import Answer, Choices, Measure, RoundTrip, Task
from mio.core.contract.values import (
    TEXT,
    Codes,
    DataModule,
    Decoding,
    Detokenizer,
    EpochSource,
    Frames,
    Media,
    MemoryFile,
    Modality,
    Record,
    Source,
    SourceFactory,
    Splitter,
    Template,
    TextTokenizer,
    Tokenizer,
    Trainable,
)
from mio.core.errors import DataError, MioError, PluginError, UserError
from mio.core.products import settle_products

if TYPE_CHECKING:
    from mio.api import load
    from mio.core.live.session import Session

settle_products()

__version__ = "0.2.0"

__all__ = [
    "TEXT",
    "Adapter",
    "Answer",
    "Arc",
    "Automaton",
    "Choices",
    "CodeRows",
    "Codes",
    "Condition",
    "Control",
    "ControlToken",
    "ControlTokens",
    "DataError",
    "DataModule",
    "Decoding",
    "Detokenizer",
    "Encoder",
    "EncoderInput",
    "EpochSource",
    "Frames",
    "Head",
    "HeadItems",
    "LoggedRun",
    "LoggedStep",
    "Logger",
    "Measure",
    "Media",
    "MemoryFile",
    "MioError",
    "Modality",
    "ModelLayout",
    "PluginError",
    "Record",
    "RoundTrip",
    "Sample",
    "Sampling",
    "Segmenter",
    "Session",
    "SessionPolicy",
    "Source",
    "SourceFactory",
    "SpanDecoder",
    "Splitter",
    "Stream",
    "Streamable",
    "Synthesiser",
    "Task",
    "Template",
    "TextTokenizer",
    "Tokenizer",
    "Trainable",
    "Turn",
    "TurnDetection",
    "UserError",
    "Utterance",
    "hookimpl",
    "load",
    "media",
    "networks",
    "number",
    "one_of",
    "read_options",
]


def __getattr__(name: str) -> Any:
    if name == "Session":  # which needs torch
        from mio.core.live.session import Session

        return Session
    if name in ("api", "load"):
        api = import_module("mio.api")
        return api if name == "api" else api.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
