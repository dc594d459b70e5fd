"""Control tokens as ids, the rules that label answers with them, and how they are told from an answer's other tokens.

A control token with an id of its own is that id. One of plain text is what the text tokenizer makes of its string by
itself, so the same ids are text anywhere but at the beginning of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations, takewhile
from typing import Any

from mio.core.contract.controls import INSERT, SILENCE, Control, ControlToken, Turn, special_control
from mio.core.contract.validation import kind
from mio.core.contract.values import TextTokenizer, Value
from mio.core.errors import DataError, MioError, PluginError, VocabularyError, nearest
from mio.core.tokens.visitor import control_of, text_of

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Controls:
    """The control tokens of a vocabulary, by name, in their declared order."""

    tokens: Mapping[str, ControlToken] = field(default_factory=dict)
    ids: Mapping[str, Ids] = field(default_factory=dict)
    """What each consists of. One of plain text is missing where the text tokenizer is not at hand."""
    inserts: Mapping[str, Ids] = field(default_factory=dict)
    """Ids of what is inserted behind each whose action that is."""

    @classmethod
    def of(
        cls, declared: Sequence[tuple[str, ControlToken]], own: Mapping[str, int], text: TextTokenizer | None
    ) -> Controls:
        """Of the declarations, `(owner plugin, declaration)`. `own` has the ids by token string of those that have one.

        Raises `VocabularyError`, naming the plugin, where ids of plain text cannot be told apart.
        """
        tokens = {token.name: token for _, token in declared}
        ids: dict[str, Ids] = {token.name: (own[token.token],) for _, token in declared if not token.plain_text}
        inserts: dict[str, Ids] = {}
        if text is not None:
            ids |= {token.name: tuple(text.encode(token.token)) for _, token in declared if token.plain_text}
            inserts = {token.name: tuple(text.encode(token.insert)) for _, token in declared if token.action == INSERT}
            _check_texts(declared, ids, inserts, text)
        return cls(tokens, {name: ids[name] for name in tokens if name in ids}, inserts)

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def check(self, name: str) -> None:
        """Raises `DataError` with the nearest name if there is no control token of that name."""
        if name not in self.tokens:
            known = f"there are {', '.join(self.tokens)}" if self.tokens else "no plugin of the recipe has any"
            raise DataError(f"no control token `{name:.40}`{nearest(name, self.tokens)} ({known})")

    def weight(self, name: str) -> float:
        """What a control token is declared to weigh; 1 where there is none of that name."""
        return self.tokens[name].weight if name in self.tokens else 1.0

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each, from 1 on."""
        return {name: number for number, name in enumerate(self.tokens, 1)}

    @cached_property
    def by_id(self) -> dict[int, str]:
        """Name by id, of those with an id of their own."""
        return {ids[0]: name for name, ids in self.ids.items() if not self.tokens[name].plain_text}

    @cached_property
    def texts(self) -> dict[Ids, str]:
        """Name by ids, of those of plain text."""
        return {ids: name for name, ids in self.ids.items() if self.tokens[name].plain_text}

    @cached_property
    def beginnings(self) -> frozenset[Ids]:
        """Beginnings of the ids of those of plain text, whole ones left out."""
        return frozenset(ids[:size] for ids in self.texts for size in range(1, len(ids)))

    def opens(self, ids: Sequence[int]) -> str:
        """Name of the control token of plain text that text of these ids would be read as; empty if it is text."""
        return next((name for text, name in self.texts.items() if tuple(ids[: len(text)]) == text), "")


def _check_texts(
    declared: Sequence[tuple[str, ControlToken]],
    ids: Mapping[str, Ids],
    inserts: Mapping[str, Ids],
    text: TextTokenizer,
) -> None:
    written = [(owner, token) for owner, token in declared if token.plain_text]
    problems = [
        f"control token `{token.name}` of plugin `{owner}`: the text tokenizer makes "
        f"{text.decode(ids[token.name])!r} of `{token.token}`: choose another token string, or give it an id of its "
        "own (`plain_text=False`)"
        for owner, token in written
        if text.decode(ids[token.name]).strip() != token.token
    ]
    for (owner, one), (other, longer) in permutations(written, 2):
        if ids[one.name] == ids[longer.name][: len(ids[one.name])] and not problems:
            problems.append(
                f"control token `{longer.name}` of plugin `{other}`: `{longer.token}` begins with the tokens of "
                f"`{one.token}`, control token `{one.name}` of plugin `{owner}`: choose another token string"
            )
    problems += [
        f"control token `{token.name}` of plugin `{owner}`: its `insert` begins with `{one.token}`, which is a control "
        "token itself: insert something else"
        for owner, token in declared
        for _, one in written
        if ids[one.name] == inserts.get(token.name, ())[: len(ids[one.name])]
    ]
    if problems:
        raise VocabularyError("; ".join(problems))


class ControlReader:
    """Tells the control tokens of one answer, whose tokens come one by one."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self.read: Ids | None = ()
        """Text so far that may turn out to be a control token; None once something else was said."""

    @property
    def begins(self) -> bool:
        """Whether nothing but control tokens was said yet."""
        return self.read == ()

    def take(self, token: int) -> str:
        """Name of the control token that ends with this token, which is not inside a span; empty if none does."""
        if name := self._controls.by_id.get(token):
            self.read = () if self.begins else None
            return name
        if self.read is None:
            return ""
        self.read = (*self.read, token)
        if name := self._controls.texts.get(self.read):
            self.read = ()
            return name
        if self.read not in self._controls.beginnings:
            self.read = None
        return ""


def is_silent(names: Sequence[str], controls: Controls) -> bool:
    """Whether control tokens that were said mean that nothing of the answer is for anybody."""
    return any(controls.tokens[name].action == SILENCE for name in names)


class Labels:
    """What answers begin with in training: what their record says, or else what the rules of the plugins say.

    Args:
        declared: control tokens, `(plugin, declaration)`.
        rules: `(plugin, rule)`. Both in the recipe's order.
    """

    def __init__(
        self, declared: Sequence[tuple[str, ControlToken]], rules: Sequence[tuple[str, Callable[[Turn], Any]]]
    ) -> None:
        self._rules = tuple(rules)
        self._names = tuple(token.name for _, token in declared)
        self._specials = {token.name for _, token in declared if token == special_control(token.token)}
        self._texts = tuple((owner, token) for owner, token in declared if token.plain_text)
        self._longest = max((len(token.token) for _, token in self._texts), default=0)

    def begun(self, content: Sequence[Value], turn: Callable[[], Turn] | None, where: str) -> list[Value]:
        """An answer as it is trained on, with its control token at the beginning if it has none yet.

        Args:
            turn: makes the answer for a rule; None where it answers nothing, and no rule is asked.
            where: names the answer, for messages.

        Raises:
            DataError: its text begins like a control token of plain text, or a rule cannot tell.
            PluginError: a rule names no control token.
        """
        said = list(takewhile(lambda item: control_of(item) is not None or text_of(item) == "", content))
        self._check_text(content[len(said) :], where)
        named = {control.name for item in said if (control := control_of(item)) is not None}
        if (
            not self._rules or turn is None or named - self._specials
        ):  # a modality's own token says nothing of the answer
            return list(content)
        return [*self._label(turn()), *content]

    def _check_text(self, content: Sequence[Value], where: str) -> None:
        if not self._texts:
            return
        text = ""
        for item in content:
            more = text_of(item)
            if more is None or len(text) > self._longest:
                break
            text = (text + more).lstrip()
        for owner, token in self._texts:
            if text.startswith(token.token):
                raise DataError(
                    f"{where} begins with the text `{token.token}`, which would be read as the control token "
                    f"`{token.name}` of plugin `{owner}`; take it away, and name the control token in its place"
                )

    def _label(self, turn: Turn) -> tuple[Control, ...]:
        """The control token that the first rule names which names one."""
        for owner, rule in self._rules:
            where = f"plugin `{owner}`, hook `mio_control_tokens`: `label`"
            try:
                name = rule(turn)
            except MemoryError:
                raise
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            except MioError as error:
                raise PluginError(f"{where}: {error}") from error
            except Exception as error:
                raise DataError(f"{where} raised {type(error).__name__}: {error}") from error
            if not isinstance(name, str):
                raise PluginError(f"{where} returned {kind(name)}, not the name of a control token or an empty string")
            if name and name not in self._names:
                raise PluginError(f"{where} returned `{name:.40}`, no control token{nearest(name, self._names)}")
            if name:
                return (Control(name),)
        return ()
