"""A server in a thread, with a model whose answers are written down."""

from __future__ import annotations

import base64
import contextlib
import io
import threading
import time
from pathlib import Path

import numpy as np
from conftest import MELODY
from openai import OpenAI
from PIL import Image
from scripted_model import PARLEY, Scripted

from mio.cli.addresses import listen
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.serve.limits import Limits
from mio.serve.server import Server, run
from mio.serve.service import Service, Settings
from mio.serve.sound import whole

GALLERY = Path(__file__).with_name("gallery.py")
PLUGINS = {"text": {"tokenizer": "bytes"}, "gallery": {}, "melody": {}, "parley": {}}
LOCAL = {"gallery": GALLERY, "melody": MELODY / "mio_melody.py", "parley": PARLEY}


class Script(Scripted):
    """Answers of text, and of pairs of a modality and the codes of an item. A prompt in plain form ends in `=`."""

    delay = 0.0
    """Seconds that a pass takes."""

    fails = False

    def __call__(self, tokens, positions, cache, items=()):
        assert not self.fails
        time.sleep(self.delay)
        return super().__call__(tokens, positions, cache, items)

    def tokens(self, answer):
        ids = []
        for part in answer if isinstance(answer, list) else [answer]:
            if isinstance(part, str):
                ids += self.codecs.text.encode(part)
                continue
            name, notes = part
            if name == "control":
                ids += self.vocabulary.controls.ids[notes]
                continue
            codes = self.vocabulary.code_ids(name, 0)
            ids += [self.vocabulary.begin(name), *(codes.start + note for note in notes), self.vocabulary.end(name)]
        return ids

    def next(self, held):
        if self.vocabulary.specials.im_start in held:
            return super().next(held)
        [equals] = self.codecs.text.encode("=")
        place = len(held) - held[::-1].index(equals)
        answer, given = self.tokens(self.answers[self.spelt(held[:place])]), held[place:]
        return answer[len(given)] if len(given) < len(answer) else self.vocabulary.specials.eos


def scripted(answers, form="chat", context=400):
    """A model that answers as is written."""
    plugins = PluginManager([*discover(), *(local(f"{name}={path}") for name, path in LOCAL.items())]).enable(PLUGINS)
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    recipe = Recipe(name="made", data=DataConfig(form=form, packing=PackingConfig(context=context)))
    transformer = Script(vocabulary, codecs, answers)
    return Model(
        recipe, plugins, vocabulary, codecs, Renderer(vocabulary, codecs, LossConfig()), Path("runs/made"),
        lambda: (transformer, Replicas(Ranks())),
    )  # fmt: skip


class Running:
    """A server that takes requests."""

    def __init__(self, model, **settings):
        limits = Limits(**settings.pop("limits", {}))
        self.model = model
        self.service = Service(model, Settings(**{"name": "made", "rows": 4, "limits": limits, **settings}))
        self.sock = listen("127.0.0.1", 0)
        self.port = self.sock.getsockname()[1]
        self.server = Server(self.service)
        self.code = None
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        with self.sock:
            self.code = run(self.server, self.sock)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def client(self, key="none", **options):
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 20, **options})

    @property
    def prompts(self):
        """What the model was shown."""
        return self.model.transformer.prompts


@contextlib.contextmanager
def serving(model, **settings):
    running = Running(model, **settings)
    running.thread.start()
    try:
        eventually(lambda: running.server.started)
        yield running
    finally:
        running.server.stop()
        running.server.stop()
        running.thread.join(20)
        assert not running.thread.is_alive()


def eventually(holds, seconds=10.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


def png(*pixels, kind="PNG"):
    """A picture of four levels, as a file."""
    file = io.BytesIO()
    Image.fromarray((np.array(pixels, np.uint8) * 85).reshape(2, 2)).save(file, kind)
    return file.getvalue()


def gif(*pictures):
    file = io.BytesIO()
    images = [Image.fromarray((np.array(one, np.uint8) * 85).reshape(2, 2)) for one in pictures]
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


def tone(*levels, kind="wav"):
    """A tone, as a file."""
    return whole(np.repeat(np.array(levels) / 8, 80).astype(np.float32), 8000, kind)


def encoded(content):
    return base64.b64encode(content).decode()


def url(content, kind="image/png"):
    return f"data:{kind};base64,{encoded(content)}"


def opened(data_url):
    """The bytes of a data URL."""
    return base64.b64decode(data_url.partition(",")[2])
