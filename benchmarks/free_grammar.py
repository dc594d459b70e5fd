"""Answers without a grammar, for benchmarks of what the grammar costs: any token may come, until the stop token or the
end of the budget."""

from __future__ import annotations

from mio.core.contract.controls import ControlToken
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need
from mio.core.generation.states import Between, Place, State, Window


class FreeGrammar(Grammar):
    """In place of the `Grammar` of a vocabulary: `FreeGrammar(vocabulary, {}, stop)`."""

    def answer(self, need: Need, budget: int) -> AnswerGrammar:
        return _FreeAnswer(self, need, budget)

    def _place(self, state: State) -> Place:  # noqa: ARG002
        return Place(Window([range(self.vocabulary.size)]))


class _FreeAnswer(AnswerGrammar):
    def __init__(self, grammar: Grammar, need: Need, budget: int) -> None:
        super().__init__(grammar, need, budget)
        self._anywhere = Between((), may_stop=True)
        self._last_token = grammar.stop

    def state(self) -> State:
        return self._anywhere

    def advance(self, token: int) -> ControlToken | None:
        self.budget -= 1
        self.done = token == self._last_token or self.budget <= 0
        return None
