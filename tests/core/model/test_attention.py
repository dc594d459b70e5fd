"""`attend` against the definition of attention, whatever way it takes."""

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from mio.core.data.document_mask import DocumentMask, Together
from mio.core.model.attention import attend
from mio.core.model.flex import block_mask, document_mask, together_mask


def visible(rows, context, window):
    """bool [B, L, L] from the definition, position by position."""
    mask = torch.zeros(len(rows), context, context, dtype=torch.bool)
    for row, lengths in enumerate(rows):
        start = 0
        for length in lengths:
            for query in range(start, start + length):
                first = max(start, query - window + 1) if window else start
                mask[row, query, first : query + 1] = True
            start += length
    return mask


def visible_together(rows, context, window, together):
    """`visible` with groups, again position by position. What is private does not count in a window."""
    mask = torch.zeros(len(rows), context, context, dtype=torch.bool)
    for row, lengths in enumerate(rows):
        document = [number for number, length in enumerate(lengths) for _ in range(length)]
        of = [
            next((one for one in together if one.row == row and one.first <= p < one.end), None) for p in range(context)
        ]
        hidden = [one is not None and one.private for one in of]
        for q, k in itertools.product(range(len(document)), repeat=2):
            if document[q] != document[k]:
                continue
            if of[q] is not None and of[q] is of[k]:
                mask[row, q, k] = True
            elif k <= q and not hidden[k] and not (of[q] is not None and of[q].dropped):
                between = sum(not hidden[p] or of[p] is of[q] for p in range(k, q))
                mask[row, q, k] = not window or between < window
    return mask


def reference(q, k, v, mask):
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("blhe,bshe->bhls", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhls,bshe->blhe", weights, v)


def qkv(batch, context, heads, kv_heads, *, width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, context, n, width) for n in (heads, kv_heads, kv_heads)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


@st.composite
def packings(draw):
    context = draw(st.integers(4, 80))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row = []
        for length in draw(st.lists(st.integers(1, 40), max_size=6)):
            if sum(row) + length <= context:
                row.append(length)
        rows.append(row)
    if not any(rows):
        rows[0] = [1]
    return rows, context


@st.composite
def packings_with_groups(draw):
    rows, context = draw(packings())
    together = []
    for row, lengths in enumerate(rows):
        start = 0
        for length in lengths:
            borders = sorted(draw(st.sets(st.integers(start, start + length), max_size=8)))
            for first, end in itertools.pairwise(borders):
                if draw(st.booleans()):
                    together.append(Together(row, first, end, *draw(st.tuples(st.booleans(), st.booleans()))))
            start += length
    return rows, context, together


@settings(max_examples=60, deadline=None)
@given(packings_with_groups(), st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.sampled_from([0, 1, 5, 64]))
def test_groups_equal_the_definition(packing, heads, window):
    rows, context, together = packing
    inputs = qkv(len(rows), context, *heads)
    mask = DocumentMask.from_lengths(rows, context, together=together)
    out, expected = attend(*inputs, mask, window), reference(*inputs, visible_together(rows, context, window, together))
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    for got, want in zip(
        torch.autograd.grad((out * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


LONG = [
    Together(0, 3, 200),
    Together(0, 200, 300, True),
    Together(0, 500, 530, dropped=True),
    Together(0, 540, 545),
]


@pytest.mark.parametrize("window", [0, 100])
def test_groups_of_long_documents_equal_the_definition(window):
    rows, context = [[530, 70]], 600
    inputs = qkv(1, context, 2, 1)
    out = attend(*inputs, DocumentMask.from_lengths(rows, context, together=LONG), window)
    expected = reference(*inputs, visible_together(rows, context, window, LONG))
    torch.testing.assert_close(out, expected)
    for got, want in zip(
        torch.autograd.grad(out.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_groups_change_no_bit_of_documents_without_any_and_see_no_other_document():
    rows, context, together = [[60, 50, 18], [128, 40]], 170, [Together(0, 70, 90), Together(0, 92, 99, True)]
    mask = DocumentMask.from_lengths(rows, context, together=together)
    inputs = qkv(2, context, 4, 2, dtype=torch.float32)

    def results(inputs, mask):
        out = attend(*inputs, mask)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    plain, first = results(inputs, DocumentMask.from_lengths(rows, context)), results(inputs, mask)
    with torch.no_grad():
        for x in inputs:
            x[0, 60:110] += 1
    second = results(inputs, mask)
    for causal, before, after in zip(plain, first, second, strict=True):
        for one, other in ((causal, before), (before, after)):
            assert torch.equal(one[1], other[1])
            assert torch.equal(one[0, :60], other[0, :60])
            assert torch.equal(one[0, 110:], other[0, 110:])
            assert not torch.equal(one[0, 60:110], other[0, 60:110])


@settings(max_examples=40, deadline=None)
@given(packings(), st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.sampled_from([0, 1, 5, 64]))
def test_equals_the_definition(packing, heads, window):
    rows, context = packing
    inputs = qkv(len(rows), context, *heads)
    out = attend(*inputs, DocumentMask.from_lengths(rows, context), window)
    expected = reference(*inputs, visible(rows, context, window))
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    for got, want in zip(
        torch.autograd.grad((out * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("window", [0, 100])
def test_long_documents_equal_the_definition(window):
    rows, context = [[530, 70], [600]], 600
    inputs = qkv(2, context, 2, 1)
    out = attend(*inputs, DocumentMask.from_lengths(rows, context), window)
    torch.testing.assert_close(out, reference(*inputs, visible(rows, context, window)))


def test_without_documents_a_row_is_one_document():
    inputs = qkv(2, 20, 4, 2)
    torch.testing.assert_close(attend(*inputs, None), reference(*inputs, visible([[20], [20]], 20, 0)))


def test_padding_is_zero_and_gets_no_gradient():
    inputs = qkv(2, 10, 2, 2)
    out = attend(*inputs, DocumentMask.from_lengths([[3, 4], [10]], 10))
    assert out[0, 7:].count_nonzero() == 0
    out.sum().backward()
    assert all(x.grad[0, 7:].count_nonzero() == 0 for x in inputs)


def test_bfloat16_is_close():
    rows, context = [[60, 50, 18], [128]], 128
    inputs = qkv(2, context, 4, 2, width=32, dtype=torch.bfloat16)
    expected = reference(*(x.double() for x in inputs), visible(rows, context, 0))
    out = attend(*inputs, DocumentMask.from_lengths(rows, context))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("window", [0, 3])
def test_mask_of_the_block_kernel(window):
    rows, context = [[5, 7, 1], [9, 3], [16]], 16
    ids = DocumentMask.from_lengths(rows, context).ids
    mask = create_mask(document_mask(ids, window), 3, None, context, context, device="cpu")
    assert torch.equal(mask[:, 0], visible(rows, context, window))


@settings(max_examples=40, deadline=None)
@given(packings_with_groups(), st.sampled_from([0, 1, 5, 64]))
def test_mask_of_the_block_kernel_with_groups(packing, window):
    rows, context, together = packing
    assume(together)
    mask = DocumentMask.from_lengths(rows, context, together=together)
    visible = together_mask(mask.ids, window, mask.together)
    made = create_mask(visible, len(rows), None, context, context, device="cpu")
    assert torch.equal(made[:, 0], visible_together(rows, context, window, together))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("window", [0, 40])
def test_block_kernel_equals_buckets(window):
    rows, context = [[100, 28, 100], [200, 50]], 256
    mask = DocumentMask.from_lengths(rows, context)
    q, k, v = (x.detach() for x in qkv(2, context, 4, 2, width=16, dtype=torch.float32))
    block_mask = create_block_mask(document_mask(mask.ids, window), 2, None, context, context, device="cpu")
    swapped = (x.transpose(1, 2) for x in (q, k, v))
    out = flex_attention(*swapped, block_mask=block_mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(out, attend(q, k, v, mask, window), atol=1e-5, rtol=1e-5)


def assert_same_blocks(got, want):
    assert got.seq_lengths == want.seq_lengths
    for kind in ("kv", "full_kv", "q", "full_q"):
        mine, theirs = (getattr(mask, f"{kind}_num_blocks") for mask in (got, want))
        assert torch.equal(mine, theirs), kind
        mine, theirs, count = (*(getattr(mask, f"{kind}_indices") for mask in (got, want)), theirs)
        chosen = torch.arange(mine.shape[-1]) < count[..., None]
        assert torch.equal(mine[chosen], theirs[chosen]), kind


@pytest.mark.parametrize("window", [0, 1, 64, 128, 129, 257])
@pytest.mark.parametrize(
    "rows",
    [
        [[1] * 300],
        [[128, 128, 44], [127, 1, 128]],
        [[200, 60], [300], [5]],
        [[3, 290], [], [100, 100, 100]],
    ],
)
@pytest.mark.parametrize("made", ["with the batch", "where it is needed"])
def test_block_mask_is_the_one_that_torch_makes(rows, window, made):
    windows = (17, window) if made == "with the batch" else ()
    mask = DocumentMask.from_lengths(rows, 300, windows)
    want = create_block_mask(document_mask(mask.ids, window), len(rows), None, 300, 300, device="cpu")
    assert_same_blocks(block_mask(mask, window), want)


@pytest.mark.parametrize("window", [0, 1, 64, 128, 129, 257])
@pytest.mark.parametrize("made", ["with the batch", "where it is needed"])
@pytest.mark.parametrize(("private", "dropped"), itertools.product([False, True], repeat=2))
def test_block_mask_of_groups_is_the_one_that_torch_makes(private, dropped, window, made):
    rows = [[512], [100, 300, 112], [600], [128, 472]]
    together = [
        Together(0, 100, 400, private, dropped),  # more than blocks of its own
        Together(1, 90, 100, private, dropped),
        Together(1, 100, 300, dropped, private),
        Together(1, 300, 320, True),
        Together(2, 128, 256, private, dropped),  # one block, all of it
        Together(2, 256, 500, True, dropped),
        Together(3, 128, 600, private, dropped),  # a whole document
    ]
    mask = DocumentMask.from_lengths(rows, 600, (17, window) if made == "with the batch" else (), together)
    visible = together_mask(mask.ids, window, mask.together)
    assert_same_blocks(block_mask(mask, window), create_block_mask(visible, 4, None, 600, 600, device="cpu"))


def test_a_pass_in_inference_mode_leaves_nothing_that_breaks_a_backward_pass():
    q, k, v = (torch.randn(1, 40, 2, 8, requires_grad=True) for _ in range(3))
    with torch.inference_mode():
        before = attend(q, k, v, None)
    after = attend(q, k, v, None)
    after.sum().backward()
    assert torch.equal(before, after.detach())
    assert q.grad.abs().sum() > 0
