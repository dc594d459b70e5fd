"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.responses = Counter(
            "mio_http_responses", "Responses by route and status.", ("route", "status"), registry=registry
        )
        self.answers = Counter("mio_answers", "Answers by the reason of their end.", ("reason",), registry=registry)
        self.prompt_tokens = Counter("mio_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.answer_tokens = Counter("mio_answer_tokens", "Tokens of answers.", registry=registry)
        self.media = Counter("mio_media", "Media by modality and way.", ("modality", "way"), registry=registry)
        self.first_token = Histogram(
            "mio_time_to_first_token_seconds", "From a request to the first token of its answer.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "mio_answer_seconds", "From a request to the end of its answer.", buckets=_SECONDS, registry=registry
        )
        self.running = Gauge("mio_answers_running", "Answers that are being made.", registry=registry)
        self.waiting = Gauge("mio_answers_waiting", "Answers that wait for their turn.", registry=registry)
        self.connections = Gauge("mio_connections", "Open connections.", registry=registry)

    def text(self) -> tuple[bytes, str]:
        """All figures in Prometheus's text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
