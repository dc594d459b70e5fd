"""A speech codec that trains in seconds: a content codebook, and residual codebooks for what the content leaves open.

The content codebook is k-means on a projection of each log-mel frame and its neighbours. Where items are labelled with
the word they say, the projection is a linear discriminant analysis that separates the parts of the words and ignores
the voice: the labels of the training items play the part that the distillation of a self-supervised model plays in
SpeechTokenizer (arXiv 2308.16692). A content code stands for the mean log-mel frame of its cluster; the other codebooks
are residual vector quantisation (SoundStream, arXiv 2107.03312) of the difference. Level is not kept.

Shapes: T samples, F frames, M mel bands, Q codebooks of K codes, P dimensions of the content projection.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError, Media, UserError, media, networks
from mio.plugins.speech.inversion import Inversion
from mio.plugins.speech.options import MelOptions
from mio.plugins.speech.spectrum import Floats, Spectrum

VERSION = 2
"""Version of the preprocessing, reading files included; part of the fingerprint."""
NEIGHBOURS = 3
"""Frames on either side that determine the content code of a frame."""
DIMENSIONS = 24
"""Largest dimension P of the content projection."""
PARTS = 6
"""Equal parts of a word, each a class of the discriminant analysis: rough phones."""
PER_LABEL = 5
"""Fewest items of a label that is used."""
MAX_FRAMES = 60_000
"""Most frames of training data, from items drawn at random."""
PASSES = 10
"""Passes of the moving averages over the frames after k-means."""

CodeGrid = npt.NDArray[np.int64]


def _with_neighbours(frames: Floats) -> Floats:
    """`[F, M]` -> `[F, (2 * NEIGHBOURS + 1) * M]`; the first and last frame go on beyond the ends."""
    padded = np.pad(frames, ((NEIGHBOURS, NEIGHBOURS), (0, 0)), mode="edge")
    return np.concatenate([padded[i : i + len(frames)] for i in range(2 * NEIGHBOURS + 1)], axis=1)


def _nearest(points: Floats, entries: Floats) -> CodeGrid:
    """Index `[F]` of the entry nearest (Euclid) to each point."""
    # |p - e|^2 without |p|^2, which is the same for all entries
    return np.asarray(np.argmin(0.5 * (entries**2).sum(axis=1) - points @ entries.T, axis=1), np.int64)


class MelCodec:
    """The codec's weights; empty until trained or loaded.

    `projection` `[7M, P]` and `centroids` `[K, P]` find the content code; `books` `[Q, K, M]` hold what each code adds
    to the log-mel frame, in decibels, the content's mean frames first.
    """

    FILE = "codec.safetensors"
    CONFIG = "config.json"

    def __init__(self, options: MelOptions) -> None:
        self.options = options
        self.spectrum = Spectrum(options.rate)
        self.weights: dict[str, Floats] = {}

    def _shape(self) -> dict[str, int]:
        options = self.options
        return {"rate": options.rate, "codebook_size": options.codebook_size, "codebooks": options.codebooks}

    @property
    def fingerprint(self) -> str:
        """Of version, options and weights: `mel_rvq-` and 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([VERSION, self._shape()], sort_keys=True).encode())
        for name in sorted(self.weights):
            digest.update(name.encode() + self.weights[name].tobytes())
        return f"mel_rvq-{digest.hexdigest()[:16]}"

    def _trained(self) -> dict[str, Floats]:
        if not self.weights:
            raise UserError("the speech tokenizer `mel_rvq` has no weights yet: train it, or load a run that did")
        return self.weights

    def encode(self, log_mel: Floats) -> CodeGrid:
        """Decibels `[F, M]` -> codes `[Q, F]`."""
        weights = self._trained()
        content = _nearest(_with_neighbours(log_mel) @ weights["projection"], weights["centroids"])
        codes, rest = [content], log_mel - weights["books"][0][content]
        for book in weights["books"][1:]:
            codes.append(_nearest(rest, book))
            rest = rest - book[codes[-1]]
        return np.stack(codes)

    def decode(self, codes: CodeGrid) -> Floats:
        """Codes `[q, F]` of the first q codebooks -> decibels `[F, M]`."""
        books = self._trained()["books"]
        return np.asarray(sum(book[row] for book, row in zip(books, codes, strict=False)), np.float32)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file(self._trained(), folder / self.FILE)
        (folder / self.CONFIG).write_text(json.dumps(self._shape(), indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Raises `UserError` if the folder holds no codec or one made with other options."""
        from safetensors.numpy import load_file

        try:
            saved = json.loads((folder / self.CONFIG).read_text(encoding="utf-8"))
            weights = load_file(folder / self.FILE)
        except FileNotFoundError as error:
            raise UserError(f"{folder}: no weights of the speech tokenizer `mel_rvq` here") from error
        if saved != self._shape():
            raise UserError(f"{folder}: the speech codec was made with {saved}, the recipe asks for {self._shape()}")
        self.weights = weights

    def fit(self, frames: Sequence[Floats], words: Sequence[str], seed: int) -> dict[str, float]:
        """Trains on log-mel items `[F, M]` and the word that each says, empty where unknown."""
        from sklearn.cluster import KMeans

        options, together = self.options, np.concatenate(frames)
        if len(together) < 2 * options.codebook_size:
            raise DataError(
                f"the speech tokenizer is trained on {len(together)} frames of 20 ms, too few for "
                f"{options.codebook_size} codes; give it more speech, or lower `codebook_size`"
            )
        context = np.concatenate([_with_neighbours(item) for item in frames])
        projection, labelled = _projection(context, [len(item) for item in frames], words)
        content = context @ projection
        clusters = KMeans(options.codebook_size, n_init=1, max_iter=50, random_state=seed).fit(content)
        centroids = np.asarray(clusters.cluster_centers_, np.float32)
        code = _nearest(content, centroids)
        count = np.bincount(code, minlength=options.codebook_size)[:, None]
        total = np.zeros((options.codebook_size, together.shape[1]))
        np.add.at(total, code, together)
        means = np.where(count > 0, total / np.maximum(count, 1), together.mean(axis=0)).astype(np.float32)
        rest = together - means[code]
        books = [means[None]]
        if options.codebooks > 1:
            books.append(_residual_books(rest, options.codebooks - 1, options.codebook_size, seed))
        self.weights = {"projection": projection, "centroids": centroids, "books": np.concatenate(books)}
        for book in self.weights["books"][1:]:
            rest = rest - book[_nearest(rest, book)]
        return {
            "frames": float(len(together)),
            "labelled_frames": float(labelled),
            "content_error_db": float(np.sqrt(((together - means[code]) ** 2).mean())),
            "error_db": float(np.sqrt((rest**2).mean())),
        }


def _projection(context: Floats, lengths: Sequence[int], words: Sequence[str]) -> tuple[Floats, int]:
    """Projection `[7M, P]` of frames with neighbours, and how many frames had a label that it was learnt from.

    Classes are the stretches of each word. With less than two words it is the frames' own principal components.
    """
    usable = sorted(word for word, count in Counter(words).items() if word and count >= PER_LABEL)
    if len(usable) < 2:
        from sklearn.decomposition import PCA

        directions = PCA(min(DIMENSIONS, *context.shape), svd_solver="covariance_eigh").fit(context).components_.T
        return np.ascontiguousarray(directions, np.float32), 0
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    number = {word: index for index, word in enumerate(usable)}
    label = np.concatenate(
        [
            PARTS * number[word] + np.arange(length) * PARTS // length if word in number else np.full(length, -1)
            for length, word in zip(lengths, words, strict=True)
        ]
    )
    known = label >= 0
    # shrinkage: neighbouring frames share samples, so the covariance is close to singular
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.01).fit(context[known], label[known])
    # beyond classes - 1 the directions are noise
    dimensions = min(DIMENSIONS, len(analysis.classes_) - 1)
    return np.ascontiguousarray(analysis.scalings_[:, :dimensions], np.float32), int(known.sum())


def _residual_books(rest: Floats, books: int, size: int, seed: int) -> Floats:
    """Codebooks `[books, size, M]` of residual vector quantisation of `rest` `[N, M]`, a function of the seed."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    # the caller's random state stays as it was
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        quantizer = ResidualVQ(
            dim=rest.shape[1],
            num_quantizers=books,
            codebook_size=size,
            kmeans_init=True,
            kmeans_iters=20,
            decay=0.8,
            threshold_ema_dead_code=2,
        )
        batch = torch.from_numpy(np.ascontiguousarray(rest, np.float32))[None]
        quantizer.train()
        for _ in range(PASSES):
            quantizer(batch)
        return np.asarray(quantizer.codebooks.numpy(), np.float32).copy()


class MelTokenizer:
    """Tokenizer (`Tokenizer`, `Trainable`): speech `(samples, rate)` -> codes `[Q, F]`, F one per started 20 ms."""

    def __init__(self, options: MelOptions) -> None:
        self.options = options
        self.codec = MelCodec(options)
        self.fingerprint = self.codec.fingerprint

    def frames(self, media: Any) -> int:
        """`ceil(T * 50 / rate)` after resampling. Raises `DataError` for anything but speech, or too much of it."""
        return self.options.sounds.frames(media, self.options.rate)

    def encode(self, media: Sequence[Any]) -> list[CodeGrid]:
        return [self.codec.encode(self._log_mel(item)) for item in media]

    def fit(self, items: Sequence[Media], seed: int) -> Mapping[str, float]:
        """Trains all codebooks. A label of one word says what the item says and shapes the content codebook.

        A label of several words is not used: it does not tell which frame belongs to which.
        Returns the frames trained on and those with a label, and the root mean square error of a log-mel band in
        decibels, by the content codebook alone and by all.
        """
        chosen, frames, words = np.random.default_rng(seed).permutation(len(items)), [], []
        left = MAX_FRAMES
        for index in chosen:
            log_mel = self._log_mel(items[index].data)
            if left < len(log_mel):
                break
            left -= len(log_mel)
            frames.append(log_mel)
            label = items[index].label.split()
            words.append(label[0] if len(label) == 1 else "")
        if not frames:
            raise DataError("the speech tokenizer has nothing to be trained on")
        with networks.one_thread():
            figures = self.codec.fit(frames, words, seed)
        self.fingerprint = self.codec.fingerprint
        return figures

    def save_weights(self, folder: Path) -> None:
        self.codec.save(folder)

    def load(self, folder: Path) -> None:
        self.codec.load(folder)
        self.fingerprint = self.codec.fingerprint

    def _log_mel(self, media: Any) -> Floats:
        return self.codec.spectrum.log_mel(self.options.sounds.mono(media, self.options.rate))


class MelDetokenizer:
    """Detokenizer: codes `[q, F]` of the first q of the Q codebooks -> `(samples float32 [T], rate)`, and WAV files."""

    def __init__(self, options: MelOptions) -> None:
        self.options = options
        self.codec = MelCodec(options)

    def load(self, folder: Path) -> None:
        self.codec.load(folder)

    def decode(self, codes: CodeGrid) -> tuple[Floats, int]:
        """Raises `DataError` for more codebooks than there are, no frames, or codes outside their codebook."""
        return self.stream().whole(codes)

    def stream(self) -> media.SampleStream:
        """Decodes a span frame by frame; samples are less than two frames behind."""
        return media.SampleStream(MelDecoder(self.codec), self.options.rate, self._checked)

    def _checked(self, codes: CodeGrid) -> CodeGrid:
        return self.options.sounds.checked_codes(codes, self.options.codebooks, self.options.codebook_size)

    def save(self, media: tuple[Floats, int], stem: Path) -> Path:
        return self.options.sounds.write(media, stem)


class MelDecoder:
    """Codes of one span -> samples (`mio.media.SampleDecoder`)."""

    def __init__(self, codec: MelCodec) -> None:
        self._codec, self._inversion = codec, Inversion(codec.spectrum)

    def push(self, codes: CodeGrid) -> Floats:
        return self._inversion.push(self._codec.decode(codes))

    def finish(self) -> Floats:
        return self._inversion.finish()
