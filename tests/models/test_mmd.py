import pytest
import torch

from matdesinne.models.mmd import SCALES, kernel_mmd, mmd


def samples(count: int = 30, dimension: int = 3, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) + shift


def naive(p, q, unbiased) -> float:
    def kernel(a, b):
        return sum(1 / (1 + float((a - b).square().sum()) / h**2) for h in SCALES)

    def within(s):
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if not (unbiased and i == j)]
        return sum(kernel(s[i], s[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(a, b) for a in p for b in q) / (len(p) * len(q))
    return within(p) + within(q) - 2 * between


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("counts", [(8, 8), (6, 9)])
def test_equals_the_double_loop(unbiased, counts, close):
    p, q = samples(counts[0]), samples(counts[1], seed=1, shift=0.3)
    close(mmd(p, q, unbiased=unbiased), naive(p, q, unbiased))


@pytest.mark.parametrize("counts", [(8, 8), (300, 150)])
def test_gradients(counts, close):
    """Of both samples, over several blocks of rows, against autograd through the whole matrix."""
    p, q = samples(counts[0]).requires_grad_(), samples(counts[1], seed=1, shift=0.3).requires_grad_()

    def whole(a, b):
        return sum((1 / (1 + (a.unsqueeze(1) - b).square().sum(2) / h**2)).mean() for h in SCALES)

    expected = torch.autograd.grad(whole(p, p) + whole(q, q) - 2 * whole(p, q), [p, q])
    for found, wanted in zip(torch.autograd.grad(mmd(p, q), [p, q]), expected, strict=True):
        close(found, wanted)


def test_zero_for_equal_samples(close):
    close(mmd(samples(), samples()), 0.0)


def test_symmetric(close):
    p, q = samples(), samples(20, seed=1)
    close(mmd(p, q), mmd(q, p))


def test_biased_is_not_negative():
    assert all(mmd(samples(seed=seed), samples(seed=seed + 50)) >= 0 for seed in range(20))


def test_unbiased_vanishes_on_average():
    values = torch.stack([mmd(samples(seed=seed), samples(seed=seed + 500), unbiased=True) for seed in range(200)])
    assert values.mean().abs() < 4 * values.std() / 200**0.5
    assert (values < 0).any()


def test_grows_with_the_distance():
    values = [float(mmd(samples(200), samples(200, seed=1, shift=shift))) for shift in (0.0, 0.5, 2.0)]
    assert values == sorted(values)


def test_gradient_is_finite_for_equal_points():
    p = torch.zeros(5, 2, requires_grad=True)
    mmd(p, torch.zeros(5, 2)).backward()
    assert p.grad.isfinite().all()


def test_gradient_draws_samples_together():
    p = samples(50, shift=1.0).requires_grad_()
    q = samples(50, seed=1)
    mmd(p, q).backward()
    assert mmd(p.detach() - 0.1 * p.grad / p.grad.norm(), q) < mmd(p, q)


PUBLISHED = [[(0.2, 0.1), (0.2, 0.5), (0.2, 2.0)], [(0.2, 2.0), (1.5, 2.0), (3.0, 2.0)]]


def published(p, q, kernels):
    """The kernels as the paper's code writes them: sum C^s ((C + d^2) / s)^-s."""

    def mean(a, b):
        squared = (a.unsqueeze(1) - b).square().sum(2)
        return sum((size**power * ((size + squared) / power) ** -power).mean() for size, power in kernels)

    return mean(p, p) + mean(q, q) - 2 * mean(p, q)


@pytest.mark.parametrize("kernels", PUBLISHED, ids=["backward", "forward"])
def test_published_kernels(kernels, close):
    p, q = samples(150).requires_grad_(), samples(140, seed=1, shift=0.3).requires_grad_()
    found, expected = kernel_mmd(p, q, kernels), published(p, q, kernels)
    close(found, expected)
    for one, other in zip(torch.autograd.grad(found, [p, q]), torch.autograd.grad(expected, [p, q]), strict=True):
        close(one, other)


def test_a_width_is_a_kernel_of_the_first_power(close):
    p, q = samples(), samples(20, seed=1, shift=0.3)
    close(mmd(p, q, [0.5, 2.0]), kernel_mmd(p, q, [(0.25, 1.0), (4.0, 1.0)]))
