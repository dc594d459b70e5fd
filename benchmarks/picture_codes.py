"""What the codes of a picture say of it: scans of the digits world, by side of a patch and size of the codebook.

    python benchmarks/picture_codes.py [2x64 4x128 4x256 4x384 4x512] [--variants 48] [--noise 8] [--folds 0]

A line per case: `codes` of a picture; nats of a code (`entropy`) and what it says of the digit in its place (`says`);
held-out scans that are told from their codes by naive Bayes without places (`bag`) and with them (`places`), by a small
network trained on so many variants of each training scan (`network`), and by the judge after the codec (`ceiling`).
`--noise` is that of the variants that are learnt from; the codebook is of variants as they are. With `--folds`, what is
held out are so many parts of the training scans, one after the other, so that nothing is chosen by the test scans (the
judge knows the training scans: `ceiling` says less then). The last line is one JSON object of all of them.
"""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from mio.plugins.digits import judges, scans
from mio.plugins.image.options import PatchOptions
from mio.plugins.image.patch_vq import PatchTokenizer, from_patches

EPOCHS, WIDTH = 4, 64
Codes = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["2x64", "4x128", "4x256", "4x384", "4x512"])
    parser.add_argument("--variants", type=int, default=48)
    parser.add_argument("--noise", type=float, default=scans.NOISE)
    parser.add_argument("--folds", type=int, default=0)
    options = parser.parse_args()
    if options.folds == 1 or options.folds < 0:
        parser.error("--folds: two or more, or 0 for the test scans")
    torch.set_num_threads(1)
    train = list(scans.indices("train"))
    splits = [
        ([one for one in train if one not in set(train[n :: options.folds])], train[n :: options.folds])
        for n in range(options.folds)
    ] or [(train, list(scans.indices("test")))]
    found = {}
    for case in options.cases:
        patch, size = map(int, case.split("x"))
        each = [measured(patch, size, *split, options.variants, options.noise) for split in splits]
        found[case] = {name: round(float(np.mean([one[name] for one in each])), 3) for name in each[0]}
        print(f"{case:>6}:", ", ".join(f"{name} {value:g}" for name, value in found[case].items()), flush=True)
    print(json.dumps(found))


def measured(patch: int, size: int, train: list[int], test: list[int], variants: int, noise: float) -> dict[str, float]:
    tokenizer = PatchTokenizer(PatchOptions(patch=patch, codebook_size=size))
    digits = scans.scans()[1]
    varied = [(index, variant) for index in train for variant in range(variants)]
    tokenizer.fit([SimpleNamespace(data=scans.vary(*one)) for one in varied], 0)
    codes = _codes(tokenizer, [scans.vary(*one, noise) for one in varied])
    labels = digits[[index for index, _ in varied]]
    unseen, right = _codes(tokenizer, [scans.scans()[0][index] for index in test]), digits[test]
    entries = tokenizer.codebook.entries
    decoded = [from_patches(entries[one], patch)[:, :, 0] for one in unseen]
    counts = np.zeros((codes.shape[1], 10, size))
    for place, of_place in enumerate(counts):
        np.add.at(of_place, (labels, codes[:, place]), 1)
    joint = counts / len(codes)
    entropy = _entropy(joint.sum(1))
    says = entropy + _entropy(joint.sum(2)) - _entropy(joint.reshape(len(joint), -1))
    return {
        "codes": codes.shape[1],
        "entropy": entropy.mean(),
        "says": says.mean(),
        "bag": (_bayes(np.broadcast_to(counts.sum(0), counts.shape), unseen) == right).mean(),
        "places": (_bayes(counts, unseen) == right).mean(),
        "network": (_network(codes, labels, unseen, size) == right).mean(),
        "ceiling": (np.array(judges.see(decoded)) == right).mean(),
    }


def _codes(tokenizer: PatchTokenizer, pictures: list[scans.Pixels]) -> Codes:
    return np.stack(tokenizer.encode(pictures))[:, 0]


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nats of each row."""
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)


def _bayes(counts: npt.NDArray[np.float64], codes: Codes) -> Codes:
    """Digits of pictures by counts [places, digits, codes]."""
    smooth = counts + 0.5
    logs = np.log(smooth / smooth.sum(-1, keepdims=True))
    return sum(logs[place][:, codes[:, place]] for place in range(len(logs))).argmax(0)


def _network(codes: Codes, labels: Codes, unseen: Codes, size: int) -> Codes:
    """Digits of unseen pictures by a network that has one embedding per code, and places by concatenation."""
    torch.manual_seed(0)
    embed, read = nn.Embedding(size, WIDTH), nn.Sequential(nn.Linear(codes.shape[1] * WIDTH, 128), nn.ReLU())
    model = nn.Sequential(embed, nn.Flatten(1), read, nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    inputs, targets = torch.from_numpy(codes), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return model(torch.from_numpy(unseen)).argmax(1).numpy()


if __name__ == "__main__":
    main()
