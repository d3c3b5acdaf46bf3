"""Special functions that NumPy lacks, in array code: sigmoid, softplus, the error function and the normal law's."""

import math

import numpy as np

from dlgpu.backend.dispatch import array_namespace

# Coefficients of t**0, t**1, ... in (1 + 2 x) exp(x * x) erfc(x) with t = (x - 3.75) / (x + 3.75), x >= 0. The form
# and the 3.75 are from M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x) in
# 0 <= x < infinity", Mathematics of Computation 36 (1981); the series, computed to 50 digits, is cut where the rest
# is under 2e-8 (float32) and under 6e-17 (float64).
ERFC32 = (
    *(1.237512619, -0.1402406583, 0.003586270394, 0.08227841998, -0.1088142701, 0.09229076959, -0.05864685874),
    *(0.02840925236, -0.00984449486, 0.001675912218, 0.000396307613, -0.0002241167467),
)
ERFC64 = (
    *(1.2375126308378275, -0.14024059858554696, 0.0035854154854790256, 0.082276738490145208, -0.10880393014244461),
    *(0.092304321160377478, -0.058693398576649338, 0.028362277418956404, -0.0097465796832652622),
    *(0.0017556258528952954, 0.00029371437804495803, -0.00029015408054084171, 5.1646529741774161e-5),
    *(2.238423915508223e-5, -1.1438048033346894e-5, -9.7355989673677493e-7, 1.7419821586224816e-6),
    *(-5.7218230603224088e-8, -2.4857126248016743e-7, 2.3263508708859124e-8, 3.1979266716668043e-8),
    *(-3.7442100809620186e-9, -2.6231073471334758e-9, 3.1114333809799252e-10),
)


def sigmoid(z, out=None):
    """1 / (1 + exp(-z)), accurate in both tails: where exp overflows to infinity, the quotient is 0 as it should be."""
    xp = array_namespace(z)
    with np.errstate(over="ignore"):
        y = xp.exp(xp.negative(z, out=out), out=out)
    y += 1
    return xp.divide(1, y, out=out)


def softplus(z):
    """log(1 + exp(z)) with no overflow."""
    xp = array_namespace(z)
    y = xp.log1p(xp.exp(-abs(z)))
    y += xp.maximum(z, 0)
    return y


def erfc(x):
    """2 / sqrt(pi) times the integral of exp(-t * t) from x on; small results keep their digits.

    The error is some units in the last place where |x| < 3, and grows with x * x beyond.
    """
    xp = array_namespace(x)
    z = xp.minimum(abs(x), 30)  # exp(-900) is 0 in every dtype, and infinity would make t NaN
    t = 1 - 7.5 / (z + 3.75)
    series = ERFC64 if x.dtype.itemsize > 4 else ERFC32
    y = xp.full_like(t, series[-1])
    for coefficient in series[-2::-1]:
        y *= t
        y += coefficient
    y *= xp.exp(-z * z)
    y /= 1 + 2 * z
    return xp.where(x < 0, 2 - y, y)


def erf(x):
    """1 - erfc(x), which is exact to the last places of 1, not of a small result."""
    return 1 - erfc(x)


def normal_cdf(z):
    """P(X <= z) of a standard normal X."""
    return 0.5 * erfc(z * -math.sqrt(0.5))


def normal_pdf(z):
    """exp(-z * z / 2) / sqrt(2 pi)."""
    xp = array_namespace(z)
    c = xp.minimum(abs(z), 40)  # the square of a larger z could overflow; the density there is 0
    return xp.exp(c * c * -0.5) * (1 / math.sqrt(2 * math.pi))
