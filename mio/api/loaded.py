"""A trained model in Python: it answers, encodes and decodes media, scores documents, and converses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from mio.api.answers import Reply, reply
from mio.api.parts import PartReader
from mio.api.running import Pending, Running
from mio.api.scores import Score, scored
from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Codes, Decoding, Media
from mio.core.distributed.devices import device_type
from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError, nearest
from mio.core.generation.defaults import decoding_for
from mio.core.generation.generate import Asked, Question, ask
from mio.core.generation.model import Model
from mio.core.generation.prompt import prompt_document, turns_of, values_of
from mio.core.generation.replicas import PRECISIONS
from mio.core.generation.scoring import score_documents
from mio.core.generation.streaming import AnswerEvent, Over
from mio.core.live.session import Session
from mio.core.recipe.places import AVERAGE, WEIGHTS
from mio.core.runs.lock import Lock, warn
from mio.core.runs.run import Run
from mio.core.tokens.chat import CONTENT, ROLE, Message, chat_document
from mio.core.tokens.documents import GENERATE, Document, interleaved_document
from mio.core.tokens.encoding import int64
from mio.core.tokens.spans import check_parts
from mio.core.tokens.templates import CHAT

ROWS = 8
"""Answers that are made together, by default."""


class Loaded:
    """A model that was trained, ready to be asked (see `mio.load`).

        run = mio.load("runs/stage4")
        run.generate(["Please describe the image. ", pixels])
        run.generate("Please generate an image according to the given description. seven", output="image")

    A prompt is a string, a list of typed parts, or messages: docs/using.md has all forms.
    """

    def __init__(self, model: Model, rows: int = ROWS, weights: str = "") -> None:
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise UserError(f"`rows` is {rows!r:.40}; it must be a number of answers that are made together, 1 or more")
        self.model = model
        """With recipe, vocabulary and codecs."""
        self.rows = rows
        """Answers that are made together, at most."""
        self._weights = weights
        self.running = Running(model, rows)
        self.parts = PartReader(model)
        """Reads prompts."""

    @classmethod
    def open(
        cls,
        folder: str | Path,
        device: str = "auto",
        precision: str = "",
        *,
        average: bool = False,
        plugins: Sequence[str] = (),
        rows: int = ROWS,
        ranks: Ranks | None = None,
    ) -> Loaded:
        """See `mio.load`. Several `ranks` hold the model together, each on a device of its own."""
        if precision and precision not in PRECISIONS:
            raise UserError(
                f"`precision` is {precision!r:.40}; it can be {' or '.join(PRECISIONS)}{nearest(precision, PRECISIONS)}"
            )
        kind = device_type(device, f"`device={device!r:.40}`")
        first, split = ranks is None or ranks.first, ranks.size if ranks is not None else 0
        tell = warn if first else lambda line: None  # noqa: ARG005
        run = Run.open(folder, PluginManager.discover(plugins), tell, weights=first, average=average)
        place = f"{kind}:{ranks.local_rank}" if ranks is not None and kind == "cuda" else kind
        return cls(Model.of(run, place, precision, ranks, split), rows, _weights(run, Path(folder)))

    @property
    def identity(self) -> str:
        """Stands for the model: the same for the same weights in the same precision."""
        return f"{self._weights}/{self.model.transformer.head_weight.dtype}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of what the model reads or writes."""
        return tuple(self.model.codecs.modalities)

    @overload
    def generate(
        self,
        prompt: Any,
        output: str = "",
        stream: Literal[False] = False,
        seed: int = 0,
        *,
        beyond_context: bool = False,
        **decoding: Any,
    ) -> Reply: ...

    @overload
    def generate(
        self,
        prompt: Any,
        output: str = "",
        *,
        stream: Literal[True],
        seed: int = 0,
        beyond_context: bool = False,
        **decoding: Any,
    ) -> Iterator[AnswerEvent]: ...

    def generate(
        self,
        prompt: Any,
        output: str = "",
        stream: bool = False,
        seed: int = 0,
        *,
        beyond_context: bool = False,
        **decoding: Any,
    ) -> Reply | Iterator[AnswerEvent]:
        """The answer to a prompt.

        Args:
            prompt: a string, a list of parts, or messages.
            output: modality that the answer is to have, and no media of another; empty: text, and media where the model
                begins one.
            stream: whether to return, in place of the answer, an iterator of what it gives out while it is made (events
                of `mio.api`). The last event has it, as `answer`. Closing the iterator calls the answer off.
            seed: the same seed gives the same answer, alone, among others, streamed or not.
            beyond_context: whether prompt and answer may be longer than what the model was trained on.
            decoding: fields of `mio.Decoding`; what is not given is as the recipe's `generate` says.

        Raises:
            UserError: a part of the prompt cannot be used, it does not fit the context, an option is invalid.
        """
        chosen = self.decoding(output, decoding)
        question = Question(output=output, decoding=chosen, seed=seed, beyond_context=beyond_context, content=())
        asked = self.ask(prompt, question)
        if stream:
            return self._events(asked)
        [(_, pending)] = self.running.answers([(0, asked)])
        return self.reply(pending)

    def _events(self, asked: Asked) -> Iterator[AnswerEvent]:
        for pending, event in self.running.events(asked):
            yield replace(event, answer=self.reply(pending)) if isinstance(event, Over) else event

    def generate_many(
        self,
        prompts: Sequence[Any],
        output: str = "",
        *,
        seed: int | Sequence[int] = 0,
        beyond_context: bool = False,
        **decoding: Any,
    ) -> list[Reply]:
        """Answers to many prompts, in order, made together.

        Args:
            seed: of the first prompt, the next one's is one more; or one per prompt. An answer is the one that
                `generate` gives with its seed.

        Raises as `generate` does, before anything is computed; messages name the prompt by its number.
        """
        seeds = [seed + place for place in range(len(prompts))] if isinstance(seed, int) else list(seed)
        if len(seeds) != len(prompts):
            raise UserError(f"`seed` has {len(seeds)} numbers for {len(prompts)} prompts")
        chosen = self.decoding(output, decoding)
        asked = []
        for number, (prompt, own) in enumerate(zip(prompts, seeds, strict=True)):
            question = Question(output=output, decoding=chosen, seed=own, beyond_context=beyond_context, content=())
            try:
                asked.append(self.ask(prompt, question))
            except UserError as error:
                told = str(error).removeprefix("prompt: ").removeprefix("prompt, ")
                raise type(error)(f"prompt {number}: {told}") from None
        found: dict[int, Reply] = {}
        for number, pending in self.running.answers(enumerate(asked)):
            found[number] = self.reply(pending)
        return [found[number] for number in range(len(asked))]

    def reply(self, pending: Pending) -> Reply:
        """The answer to a question that is answered. Raises `UserError` where it failed, or cannot be decoded."""
        return reply(pending, self.model, self.parts.media_types)

    def ask(self, prompt: Any, question: Question) -> Asked:
        """A question whose content is this prompt, as tokens. Raises as `generate` does."""
        return ask(self.model, replace(question, content=self.parts.prompt(prompt)))

    def decoding(self, output: str, options: Mapping[str, Any]) -> Decoding:
        """How an answer of this modality is decoded. Raises `UserError` for unknown options."""
        return decoding_for(self.model.recipe, output, **options)

    def encode(self, media: Any, modality: str = "") -> Any:
        """Codes of an item: `mio.Codes`; of a modality of parts (a video), a list of those of its parts.

        Args:
            media: in any form that a prompt may have it in.
            modality: where the form of the media does not say it.

        Raises:
            UserError: it cannot be read, or the modality has no codes.
        """
        item = self.parts.media(modality, media) if modality else self.parts.of_object(media)
        codecs, name = self.model.codecs, item.modality
        if codecs.modalities[name].parts:
            return [self._encoded(part) for part in codecs.split(item)]
        return self._encoded(item)

    def _encoded(self, item: Media | Codes) -> Codes:
        if isinstance(item, Codes):
            return item
        if not self.model.codecs.is_coded(item.modality):
            raise UserError(f"`{item.modality}` has no codes in this run: networks read it as it is")
        return Codes(item.modality, self.model.codecs.codes(item))

    def decode(self, codes: Codes | Sequence[Codes], modality: str = "") -> Any:
        """Media of codes; of a list of codes with a modality of parts (a video), one item of it.

        Raises:
            UserError: they are no codes of this run, or no media can be made of them.
        """
        if isinstance(codes, Codes) or not isinstance(codes, Sequence):
            return self._decoded(codes)
        media = [self._decoded(one) for one in codes]
        if not modality:
            raise UserError("several codes are parts of one item: say of which modality it is")
        declared = self.model.codecs.modalities.get(modality)
        if declared is None or not declared.parts:
            known = [name for name, one in self.model.codecs.modalities.items() if one.parts]
            hint = f"{nearest(modality, known)}; there are {', '.join(known) or 'none'}"
            raise UserError(f"`{modality:.40}` is no modality of parts{hint}")
        check_parts(declared, "", codes)
        return self.model.codecs.decode(modality, media)

    def _decoded(self, codes: Codes) -> Any:
        if not isinstance(codes, Codes):
            raise UserError(f"codes are `mio.Codes`, not {type(codes).__name__}")
        [value] = self.parts.parts(codes, "codes")
        assert isinstance(value, Codes)
        name = codes.modality
        if not self.model.codecs.is_coded(name):
            raise UserError(f"`{name}` has no codes in this run: networks read it as it is")
        plan = self.model.renderer.plan(name, GENERATE)
        carried = plan.carried(int64(codes.codes), "", codes.codebooks)
        return self.model.codecs.decode(name, carried)

    def score(self, document: Any, prompt: Any = None, *, seed: int = 0, beyond_context: bool = False) -> Score:
        """How likely the model finds a document.

        Args:
            document: parts, as the model would write them; or messages, of which the assistant's count.
            prompt: what the document answers: then it alone counts.
            seed: of the noise by which heads are asked about media.

        Raises:
            UserError: as `generate` does.
        """
        [score] = self._scored([self._document(document, prompt)], seed, beyond_context)
        return score

    def score_many(
        self,
        documents: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        *,
        seed: int = 0,
        beyond_context: bool = False,
    ) -> list[Score]:
        """How likely the model finds many documents, in order; each as `score` has it, computed together.

        Args:
            prompts: what each answers.

        Raises as `score` does; messages name the document by its number.
        """
        if prompts is not None and len(prompts) != len(documents):
            raise UserError(f"there are {len(prompts)} prompts for {len(documents)} documents")
        made = []
        for number, document in enumerate(documents):
            try:
                made.append(self._document(document, None if prompts is None else prompts[number]))
            except UserError as error:
                raise type(error)(f"document {number}: {error}") from None
        return self._scored(made, seed, beyond_context)

    def _scored(self, documents: Sequence[_Scored], seed: int, beyond_context: bool) -> list[Score]:
        found = score_documents(self.model, [one.document for one in documents], seed, beyond_context)
        return [
            scored(scores, one.document, one.turns, one.after, self.model.vocabulary)
            for scores, one in zip(found, documents, strict=True)
        ]

    def _document(self, document: Any, prompt: Any) -> _Scored:
        chat, system = self.model.recipe.data.form == CHAT, self.model.recipe.data.system
        given = self.parts.prompt(document)
        if turns := turns_of(given):
            if prompt is not None or not chat:
                raise UserError(
                    "document: is a conversation; give it without a prompt"
                    if chat
                    else "document: is a conversation, and the model was trained without turns (`data.form: plain`)"
                )
            return _Scored(chat_document(turns, system), _counted(turns), 0)
        values = values_of(given)
        if prompt is None:
            return _Scored(interleaved_document(values), [], 0)
        asked = self.parts.prompt(prompt)
        made = prompt_document(self.model, asked, None, values)
        counts = _counted(turns_of(asked)) or [("user", len(asked))]
        return _Scored(made, [*counts, ("assistant", len(values))], made.answer)

    def session(self, policy: str = "", *, clock: Any = None, seed: int = 0, **options: Any) -> Session:
        """A live conversation with the model (see docs/live.md); `options` are those of its policy. Raises `UserError`
        if the run does not allow one."""
        return Session(self.model, policy, options, clock=clock, seed=seed)

    def __repr__(self) -> str:
        return f"Loaded({str(self.model.folder)!r}, modalities: {', '.join(self.modalities)})"


class _Scored(NamedTuple):
    """What is scored."""

    document: Document
    turns: list[tuple[str, int]]
    """Role and number of values of each."""
    after: int
    """Index of the first segment that counts."""


def _weights(run: Run, folder: Path) -> str:
    """Stands for the weights of a run, or of one of its checkpoints."""
    lock = Lock.read(run.folder)
    weights = lock.files.get(AVERAGE if run.average else WEIGHTS, "") if run.finished else folder.name
    told = [lock.recipe, lock.run, lock.vocabulary, weights, run.average]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _counted(turns: Sequence[Message]) -> list[tuple[str, int]]:
    """Role and number of values of each turn."""
    return [(turn[ROLE], len(turn[CONTENT])) for turn in turns]
