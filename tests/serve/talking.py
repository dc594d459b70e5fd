"""Realtime conversations in tests: a model whose answers are written down, that hears humming, and a client."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import numpy as np
from hum import hum
from scripted_model import found
from served import GALLERY, Script, serving
from websockets.sync.client import connect

from mio.core.contract.discovery import local
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

HUM = Path(__file__).with_name("hum.py")
VOICE = {"detector": "energy", "level": -40, "silence": 0.2, "shortest": 0.1, "padding": 0.0}
SPOKEN, UNADDRESSED, WRITTEN = "<1>", "<2>", "<3>"
ANSWERS = {
    "(3)": f"{SPOKEN}three",
    "(5)": f"{SPOKEN}five of them are here, and it takes long to say so",
    "(7)": f"{UNADDRESSED}nobody",
    "hello": f"{WRITTEN}hi there",
    "hum": [WRITTEN, "so: ", ("hum", [1, 2, 3, 4])],
}


class Humming(Script):
    """Hears how loud a hum is, not how long."""

    def spelt(self, ids):
        names = {self.vocabulary.specials.im_start: "<im_start>", self.vocabulary.specials.im_end: "<im_end>",
                 self.vocabulary.specials.bos: ""}  # fmt: skip
        text, run = "", []
        for index in [*ids, self.vocabulary.specials.bos]:
            if index not in names:
                run.append(index)
                continue
            for part in parse_tokens(run, self.vocabulary, self.codecs.text).parts:
                text += part if isinstance(part, str) else self.heard(part)
            text, run = text + names[index], []
        return text

    def answer(self, held):
        try:
            return super().answer(held)
        except KeyError as error:  # a question of the past, of which not all is told
            raise ValueError from error

    def heard(self, part):
        if not hasattr(part, "codes"):
            return f"<{part.name}>"
        codes = part.codes[0].tolist()
        return f"({max(set(codes), key=codes.count)})" if part.modality == "hum" else str(codes)


def humming(script=ANSWERS, context=600, policy=True, form="chat", system=None, **session):
    """A model that answers as is written. `session`: options of its conversations; `policy`: whether it has one."""
    session = {"modality": "hum", "history": 5, "voice": VOICE, **session}
    plugins = {
        "text": {"tokenizer": "bytes"},
        "hum": {},
        "gallery": {},
        **({"vita": {"session": session}} if policy else {}),
    }
    candidates = [*found(), local(f"gallery={GALLERY}"), local(f"hum={HUM}")]
    enabled = PluginManager(candidates).enable(plugins)
    codecs = Codecs(enabled)
    vocabulary = Vocabulary.build(codecs.text, enabled.modalities(), enabled.control_tokens())
    data = DataConfig(form=form, packing=PackingConfig(context=context), system=system or {})
    transformer = Humming(vocabulary, codecs, script)
    return Model(
        Recipe(name="made", data=data), enabled, vocabulary, codecs, Renderer(vocabulary, codecs, LossConfig()),
        Path("runs/made"), lambda: (transformer, Replicas(Ranks())),
    )  # fmt: skip


@contextlib.contextmanager
def talking(model=None, delay=0.0, **settings):
    """A server, and a client that has been greeted."""
    model = model or humming()
    model.transformer.delay = delay
    with serving(model, **settings) as server, client(server) as one:
        yield server, one


@contextlib.contextmanager
def client(server):
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime?model=made", max_size=1 << 24) as socket:
        one = Client(socket)
        one.session = one.until("session.created")[-1]["session"]
        yield one


class Client:
    """Sends and receives events."""

    def __init__(self, socket):
        self.socket = socket

    def send(self, kind, **fields):
        self.socket.send(json.dumps({"type": kind, **fields}))

    def next(self):
        self.last = json.loads(self.socket.recv(timeout=10))
        return self.last

    def until(self, *kinds, count=1):
        """All events up to so many of these kinds."""
        seen = []
        while sum(event["type"] in kinds for event in seen) < count:
            seen.append(self.next())
        return seen

    def update(self, **session):
        self.send("session.update", session={"type": "realtime", **session})
        return self.until("session.updated", "error")[-1]

    def hum(self, *levels, seconds=0.3, silence=0.4):
        """Hums these levels one after the other, with silence behind each, in chunks of 100 ms."""
        for level in levels:
            sound = np.concatenate([hum([level], seconds=seconds), np.zeros(round(silence * 24000), np.float32)])
            for start in range(0, len(sound), 2400):
                self.send("input_audio_buffer.append", audio=pcm(sound[start : start + 2400]))

    def say(self, text):
        self.send(
            "conversation.item.create",
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        )


def pcm(samples):
    return base64.b64encode(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()).decode()


def levels(events):
    """Levels of the sound that events brought, in pieces of 20 ms."""
    sound = b"".join(base64.b64decode(one["delta"]) for one in events if one["type"] == "response.output_audio.delta")
    samples = np.frombuffer(sound, "<i2") / 32768
    middles = samples[240::480]
    return [round(8 * float(one)) for one in middles]


def kinds(events):
    """Types of events, each run of one type once."""
    short = []
    for event in events:
        if not short or short[-1] != event["type"]:
            short.append(event["type"])
    return short
