"""One realtime conversation: what its client does, and what is heard. All of it runs in the engine's thread, between
two steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mio.core.contract.sessions import MODEL
from mio.core.contract.values import Decoding
from mio.core.errors import UserError
from mio.core.live.session import Session
from mio.serve.errors import ApiError
from mio.serve.realtime.answers import CLIENT_CANCELLED, Answers, Manner
from mio.serve.realtime.audio import Began, Ended, Heard
from mio.serve.realtime.items import Item, Items, cut_values, identifier, is_sound, spoken_item
from mio.serve.realtime.protocol import ItemDelete, ItemRetrieve, ItemTruncate, ResponseCancel, ResponseSettings
from mio.serve.realtime.responses import Outgoing

_log = logging.getLogger("mio.serve")


class Conversation:
    """A conversation of a client.

    Args:
        session: on the engine that all requests share.
        listens: modality of what is said aloud.
        writes, decoding, check_free: see `Answers`.
        manner: of its answers.
        send: takes events for the client.
        most: bytes of media that it keeps.
    """

    def __init__(
        self,
        session: Session,
        listens: str,
        writes: str,
        decoding: Callable[[str], Decoding],
        manner: Manner,
        send: Callable[[Outgoing], None],
        check_free: Callable[[], None],
        most: int,
    ) -> None:
        self.manner = manner
        self._listens, self._send = listens, send
        self._items = Items(session.policy, most)
        self.answers = Answers(session, self._items, writes, decoding, send, check_free)
        self._speaking = ""
        """Name of the item of what is being said."""

    @property
    def quiet(self) -> bool:
        """Whether the model has answered and nobody says anything."""
        return self.answers.over and not self._speaking

    # what the client does

    def change(self, manner: Manner, told: dict[str, Any]) -> None:
        """Takes what the client chose for answers from now on, and tells that it did."""
        self.manner = manner
        self._send(told)

    def add_item(self, item: Item, after: str | None) -> None:
        """Takes an item that the client has made."""
        self._told_item(item, self._items.add(item, after))

    def clear_input(self) -> None:
        """What was in the input buffer is left out."""
        self._speaking = ""
        self._send({"type": "input_audio_buffer.cleared"})

    def retrieve_item(self, event: ItemRetrieve) -> None:
        item = self._items.find(event.item_id)
        self._send(lambda: {"type": "conversation.item.retrieved", "item": item.wire(sound=True)})

    def delete_item(self, event: ItemDelete) -> None:
        item = self._items.find(event.item_id)
        if item.status == "in_progress":
            raise ApiError(
                400, "`item_id`: this answer is still being made; cancel its response first", "item_id", "invalid_value"
            )
        self._items.delete(item)
        self._send({"type": "conversation.item.deleted", "item_id": item.id})

    def truncate_item(self, event: ItemTruncate) -> None:
        """Has the model know no more of an answer than was heard."""
        item, number, heard = self._items.find(event.item_id), event.content_index, event.audio_end_ms / 1000
        response = self.answers.of(item)
        given = response.given[number] if response is not None and number < len(response.given) else None
        if given is None or item.content[number]["type"] != "output_audio":
            raise _wrong("content_index", "only sound that the model has given in a response can be truncated")
        if item.status == "in_progress":
            raise _wrong("item_id", "this answer is still being made; cancel its response first")
        if heard > given.seconds + 0.001:
            raise _wrong("audio_end_ms", f"the sound is {round(1000 * given.seconds)} ms long")
        text, model = given.characters(heard), self.answers.session.model
        names = sorted({str(getattr(value, "modality", "")) for value in item.values} - {""})
        sound = next((name for name in names if is_sound(model, name)), "")
        item.said = cut_values(item.values, text, heard, given.spans, sound, model) or [""]
        item.content[number]["transcript"] = item.content[number]["transcript"][:text]
        self._send({"type": "conversation.item.truncated", "item_id": item.id, "content_index": number,
                    "audio_end_ms": event.audio_end_ms})  # fmt: skip

    def create_response(self, settings: ResponseSettings | None) -> None:
        """Has the model answer, whatever it says about whom it is asked by."""
        if self.answers.active:
            raise ApiError(
                400, "a response is being made already; wait for its end, or cancel it", None,
                "conversation_already_has_active_response",
            )  # fmt: skip
        self.answers.ask(self._items.new(), self._manner_of(settings), wanted=True)

    def _manner_of(self, settings: ResponseSettings | None) -> Manner:
        if settings is None:
            return self.manner
        form, chosen = self.manner.form, settings.audio.output if settings.audio is not None else None
        form = replace(
            form, metadata=settings.metadata,
            modality=settings.output_modalities[0] if settings.output_modalities else form.modality,
            max_output_tokens=settings.max_output_tokens or form.max_output_tokens,
            voice=chosen.voice if chosen is not None and isinstance(chosen.voice, str) else form.voice,
        )  # fmt: skip
        instructions = settings.instructions
        return replace(self.manner, form=form,
                       instructions=self.manner.instructions if instructions is None else instructions)  # fmt: skip

    def cancel_response(self, event: ResponseCancel) -> None:
        """Ends the response that is being made."""
        active = [one for one in self.answers.active if event.response_id in (None, one.id)]
        if not active:
            param = None if event.response_id is None else "response_id"
            raise ApiError(400, "no such response is being made", param, "response_cancel_not_active")
        self.answers.call_off(active, CLIENT_CANCELLED)

    # what is heard

    def hear(self, heard: Sequence[Heard], detected: bool) -> None:
        """Takes what was found in the input buffer, by voice activity or, not `detected`, by the client's commit."""
        problem: ApiError | None = None
        for one in heard:
            try:
                if isinstance(one, Ended):
                    self._hear_utterance(one, detected)
                elif detected:
                    self._hear_onset(one)
            except ApiError as error:  # what comes after it is heard all the same
                problem = problem or error
        if problem is not None:
            raise problem

    def _hear_onset(self, began: Began) -> None:
        self._speaking = identifier("item")
        self._send({"type": "input_audio_buffer.speech_started", "audio_start_ms": round(1000 * began.start),
                    "item_id": self._speaking})  # fmt: skip
        decides = self.answers.session.policy.answers == MODEL and self.manner.creates
        if self.manner.interrupts and not decides:
            self.answers.stop()

    def _hear_utterance(self, ended: Ended, detected: bool) -> None:
        utterance = ended.utterance
        item = spoken_item(self._listens, utterance.data)
        item.id, self._speaking = self._speaking or item.id, ""
        if detected:
            self._send({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": round(1000 * utterance.end),
                        "item_id": item.id})  # fmt: skip
            if utterance.ignored:
                return
        self._commit(item)
        if detected and self.manner.creates:
            self.answers.ask(self._items.new(), self.manner, wanted=False)

    def _commit(self, item: Item) -> None:
        """What was heard is a message."""
        before = self._items.add(item)
        self._send({"type": "input_audio_buffer.committed", "previous_item_id": before, "item_id": item.id})
        self._told_item(item, before)

    def wait_no_longer(self, heard: Ended) -> None:
        """The user has said nothing for long, and only this was `heard`: the model goes on by itself."""
        if not self.quiet:
            return
        if len(heard.utterance.data[0]):
            item = spoken_item(self._listens, heard.utterance.data)
            self._send({"type": "input_audio_buffer.timeout_triggered", "item_id": item.id,
                        "audio_start_ms": round(1000 * heard.utterance.start),
                        "audio_end_ms": round(1000 * heard.utterance.end)})  # fmt: skip
            self._commit(item)
        self.create_response(None)

    def _told_item(self, item: Item, before: str | None) -> None:
        for kind in ("added", "done"):
            self._send({"type": f"conversation.item.{kind}", "previous_item_id": before, "item": item.wire()})

    # what goes wrong

    def guarded(self, function: Callable[[], None], event_id: str | None = None) -> None:
        """Does something for the client, which is told what is wrong with it."""
        try:
            function()
            self.answers.attend()
        except ApiError as error:
            self.answers.error(error, event_id)
        except UserError as error:
            self.answers.error(ApiError(400, str(error), code="invalid_value"), event_id)
        except Exception:
            _log.exception("an event of a realtime conversation failed")
            self.answers.error(ApiError(500, "the server failed; its log says how", code="internal_error"), event_id)


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(400, f"`{field}`: {message}", field, "invalid_value")
