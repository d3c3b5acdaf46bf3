"""Special functions of one number that LLVM can compute for a whole vector at once, for use in compiled loops.

In float32 they are polynomials, some units in the last place from the truth; in float64 the C library's, which are
scalar. NaN goes through, and infinities give the limits.
"""

import math

import numpy as np

from dlgpu.backend.cpu.jit import by_dtype, inline_jit, sum_jit
from dlgpu.backend.reference.special import ERFC32

F, I = np.float32, np.int32
ROUNDER = F(1.5 * 2**23)  # added to a small number, it leaves that rounded to an integer in the lowest bits
ROUNDER_BITS = I(ROUNDER.view(I))
LOG2_E, LN2_HIGH, LN2_LOW = F(1 / math.log(2)), F(0.693359375), F(math.log(2) - 0.693359375)
C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11 = map(F, ERFC32)


@inline_jit
def clip(x, low, high):
    """What is nearest to x from low to high; NaN is neither below nor above, and stays."""
    x = low if x < low else x
    return high if x > high else x


@inline_jit
def _power(x):
    """(n, r, q): x = n ln(2) + r with |r| <= ln(2) / 2, and q = exp(r) - 1. The polynomial is Cephes's expf."""
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    return I(F(shifted).view(I) - ROUNDER_BITS), p * (r * r) + r


@inline_jit
def _two_to(n):
    """2**n for n in [-127, 127]; 0 at -127."""
    return I((n + I(127)) << I(23)).view(F)


@inline_jit
def exp32(x):
    n, q = _power(clip(x, F(-104), F(89)))
    half = I(n >> I(1))  # in two steps, for the ends of the range
    return (q + F(1)) * _two_to(half) * _two_to(I(n - half))


@inline_jit
def expm1_32(x):
    n, q = _power(clip(x, F(-20), F(88.5)))
    half = I(n >> I(1))
    first, second = _two_to(half), _two_to(I(n - half))
    return q * first * second + (first * second - F(1))


@inline_jit
def log32(x):
    """For positive normal x; -inf at 0, NaN below. Cephes's logf."""
    bits = I(F(x).view(I) - I(0x3F3504F3))  # the fraction from sqrt(1/2) on
    n = F(bits >> I(23))
    r = I((bits & I(0x7FFFFF)) + I(0x3F3504F3)).view(F) - F(1)
    p = F(7.0376836292e-2)
    p = p * r - F(1.1514610310e-1)
    p = p * r + F(1.1676998740e-1)
    p = p * r - F(1.2420140846e-1)
    p = p * r + F(1.4249322787e-1)
    p = p * r - F(1.6668057665e-1)
    p = p * r + F(2.0000714765e-1)
    p = p * r - F(2.4999993993e-1)
    p = p * r + F(3.3333331174e-1)
    square = r * r
    y = r * square * p + n * LN2_LOW - F(0.5) * square
    y = r + y + n * LN2_HIGH
    y = y if x < F(math.inf) else x  # infinity, and NaN
    return y if x > F(0) else (F(-math.inf) if x == F(0) else F(math.nan))


@inline_jit
def log1p32(x):
    """For x > -1: log(1 + x), and what the sum's rounding took away."""
    u = x + F(1)
    y = log32(u) - ((u - F(1)) - x) / u
    return y if u < F(math.inf) else u


@inline_jit
def tanh32(x):
    e = expm1_32(F(-2) * abs(x))
    y = e / (e + F(2))
    return y if x < F(0) else -y


@inline_jit
def erfc32(x):
    """As the reference's."""
    z = abs(x)
    z = F(30) if z > F(30) else z
    t = F(1) - F(7.5) / (z + F(3.75))
    y = C11 * t + C10
    y = y * t + C9
    y = y * t + C8
    y = y * t + C7
    y = y * t + C6
    y = y * t + C5
    y = y * t + C4
    y = y * t + C3
    y = y * t + C2
    y = y * t + C1
    y = y * t + C0
    y = y * exp32(-z * z) / (F(1) + F(2) * z)
    return F(2) - y if x < F(0) else y


# In float64 they are those of the C library.
exp = by_dtype(exp32, inline_jit(lambda x: math.exp(x)))
expm1 = by_dtype(expm1_32, inline_jit(lambda x: math.expm1(x)))
log = by_dtype(log32, inline_jit(lambda x: math.log(x)))
log1p = by_dtype(log1p32, inline_jit(lambda x: math.log1p(x)))
tanh = by_dtype(tanh32, inline_jit(lambda x: math.tanh(x)))
erfc = by_dtype(erfc32, inline_jit(lambda x: math.erfc(x)))


@inline_jit
def sigmoid(z):
    """1 / (1 + exp(-z))"""
    return F(1) / (F(1) + exp(-z))


@inline_jit
def softplus(z):
    """log(1 + exp(z))"""
    return log1p(exp(-abs(z))) + (F(0) if z < F(0) else z)


@inline_jit
def normal_cdf(z):
    """P(X <= z) of a standard normal X."""
    return F(0.5) * erfc(z * type(z)(-0.7071067811865476))


@inline_jit
def normal_pdf(z):
    """exp(-z * z / 2) / sqrt(2 pi)"""
    c = abs(z)
    c = type(z)(40) if c > F(40) else c
    return exp(c * c * F(-0.5)) * type(z)(0.3989422804014327)


@sum_jit
def row_sum(x):
    """sum_j x[j]"""
    total = type(x[0])(0)
    for j in range(x.size):
        total += x[j]
    return total


@sum_jit
def row_product(x, y):
    """sum_j x[j] y[j]"""
    total = type(x[0])(0)
    for j in range(x.size):
        total += x[j] * y[j]
    return total
