import math

import pytest
import torch
from mio_world import DECLARED, IMAGE, MUSIC, SPEECH, TEXT, FakeText

from mio.core.errors import VocabularyError
from mio.core.model.vocabulary_rows import RowReport, migrate_rows
from mio.core.tokens.vocabulary import Vocabulary

SIZE = 3000


def text():
    return FakeText(size=SIZE)


@pytest.fixture(scope="module")
def backbone():
    return Vocabulary.build(text(), [("text", TEXT)])


@pytest.fixture(scope="module")
def trained(backbone):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(backbone.rows, 16, generator=generator) * torch.linspace(0.5, 3, 16) + torch.arange(16) / 4
    rows[SIZE:] = 1e6  # padding must never be read
    return rows


def test_kept_rows_are_bit_identical_and_padding_is_zero(backbone, trained):
    grown = Vocabulary.build(text(), DECLARED, base=backbone)
    for dtype in (torch.float32, torch.bfloat16):
        weight = trained.to(dtype)
        rows, report = migrate_rows(weight, backbone, grown, seed=0)
        assert rows.shape == (grown.rows, 16)
        assert rows.dtype == dtype
        assert torch.equal(rows[:SIZE], weight[:SIZE])
        assert not rows[grown.size :].any()
        assert rows[SIZE : grown.size].abs().max() < 10
        assert report == RowReport(kept=SIZE, new=6 + 4096 + 8192, absent=0)


def test_new_rows_have_the_mean_and_the_scaled_covariance_of_the_trained_ones(backbone, trained):
    grown = Vocabulary.build(text(), DECLARED, base=backbone)
    rows, _ = migrate_rows(trained, backbone, grown, seed=1)
    new = rows[list(grown.code_ids("image", 0))].double()
    old = trained[:SIZE].double()
    spread = old.std(dim=0) * math.sqrt(1e-2)
    assert ((new.mean(dim=0) - old.mean(dim=0)).abs() < 5 * spread / math.sqrt(len(new))).all()
    expected = torch.cov(old.T) * 1e-2
    off = (torch.cov(new.T) - expected) / torch.outer(spread, spread)
    assert off.abs().max() < 0.2  # 1,024 of the 3,000 rows: their covariance is itself a sample


def test_new_tokens_take_little_probability(backbone, trained):
    # Hewitt 2021: at the mean, n new tokens beside m trained ones take at most n / m of their mass
    grown = Vocabulary.build(text(), DECLARED, base=backbone)
    rows, report = migrate_rows(trained, backbone, grown, seed=0)
    hidden = torch.randn(200, 16, generator=torch.Generator().manual_seed(3)) * 0.5
    logits = hidden @ rows[: grown.size].T
    ratio = (logits[:, SIZE:].logsumexp(1) - logits[:, :SIZE].logsumexp(1)).exp()
    assert (ratio < 1.05 * report.new / report.kept).all()


def test_rows_differ_after_rounding_to_bfloat16(backbone, trained):
    grown = Vocabulary.build(text(), DECLARED, base=backbone)
    rows, _ = migrate_rows(trained.bfloat16(), backbone, grown, seed=0)
    codes = rows[list(grown.code_ids("speech", 0))].float()
    assert len(torch.unique(codes, dim=0)) == 1024


def test_a_blocks_rows_depend_on_seed_and_name_alone(backbone, trained):
    forwards = Vocabulary.build(text(), [("text", TEXT), ("image", IMAGE), ("speech", SPEECH)], base=backbone)
    backwards = Vocabulary.build(
        text(), [("melody", MUSIC), ("speech", SPEECH), ("image", IMAGE), ("text", TEXT)], base=backbone
    )
    one, _ = migrate_rows(trained, backbone, forwards, seed=5)
    two, _ = migrate_rows(trained, backbone, backwards, seed=5)
    other, _ = migrate_rows(trained, backbone, forwards, seed=6)
    for block in forwards.blocks[1:]:
        place = backwards.block(block.name)
        assert torch.equal(one[block.start : block.start + block.size], two[place.start : place.start + place.size])
        assert not torch.equal(one[block.start], other[block.start])
    assert not torch.equal(one[forwards.code_ids("speech", 0).start], one[forwards.code_ids("speech", 1).start])


def test_absent_blocks_keep_their_rows(backbone, trained):
    full = Vocabulary.build(text(), DECLARED, base=backbone)
    rows, _ = migrate_rows(trained, backbone, full, seed=0)
    without = Vocabulary.build(text(), [("text", TEXT), ("melody", MUSIC)], base=full)
    kept, report = migrate_rows(rows, full, without, seed=0)
    assert torch.equal(kept[: full.size], rows[: full.size])
    assert report == RowReport(kept=full.size, new=8194, absent=6 + 4096 + 8192)


def test_blocks_are_matched_by_name_wherever_they_are():
    one = Vocabulary.build(text(), [("text", TEXT), ("image", IMAGE), ("speech", SPEECH)])
    two = Vocabulary.build(text(), [("text", TEXT), ("speech", SPEECH), ("image", IMAGE)])
    weight = torch.randn(one.rows, 4)
    moved, report = migrate_rows(weight, one, two, seed=0)
    assert report.new == 0
    for index in range(0, one.size, 97):
        assert torch.equal(moved[two.id(one.token(index))], weight[index])


def test_trained_rows_are_never_lost(backbone, trained):
    full = Vocabulary.build(text(), DECLARED)
    with pytest.raises(VocabularyError, match=r"trained blocks would be lost: .*</image>"):
        migrate_rows(torch.zeros(full.rows, 2), full, backbone, seed=0)
    with pytest.raises(VocabularyError, match="2999 rows, its vocabulary 3000 ids"):
        migrate_rows(trained[:2999], backbone, full, seed=0)
    with pytest.raises(VocabularyError, match="block `text` has 3000 trained rows, the new vocabulary 3001"):
        migrate_rows(trained, backbone, Vocabulary.build(FakeText(size=3001), [("text", TEXT)]), seed=0)


def test_a_bias_goes_the_way_of_its_rows(backbone, trained):
    grown = Vocabulary.build(text(), DECLARED, base=backbone)
    bias, report = migrate_rows(trained[:, 3], backbone, grown, seed=0)
    assert (bias.shape, report.kept) == ((grown.rows,), SIZE)
    assert torch.equal(bias[:SIZE], trained[:SIZE, 3])
    assert not bias[grown.size :].any()
    new, old = bias[SIZE : grown.size], trained[:SIZE, 3]
    assert (new.mean() - old.mean()).abs() < 0.1 * old.std() / math.sqrt(1000) * 5
    assert 0.08 < new.std() / old.std() < 0.12
