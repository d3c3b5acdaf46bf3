"""How functions of the CPU column are marked: for Numba, which is imported only when one is compiled anew."""

import functools
from collections.abc import Callable
from typing import Any

from dlgpu.backend.cpu.native import InCompiledCode, Loop


def jit(function: Callable, fastmath: tuple = ("contract", "nsz"), **options: Any) -> Loop:
    """The function, compiled when it is first called with arguments of a kind.

    Fused multiply-add and signless zeros only: NaN and infinities keep their rules, sums their order. It must not
    raise, make arrays or return anything, unless other compiled functions alone call it.
    """
    return Loop(function, fastmath, **options)


# For functions of a few numbers: always compiled into the loop, without which that could not be made of vectors.
inline_jit = functools.partial(jit, forceinline=True)

# For sums over a row, which vectors add up in an order of their own. It is the same every time.
sum_jit = functools.partial(jit, fastmath=("contract", "nsz", "reassoc"))


def by_dtype(narrow: Callable, wide: Callable) -> InCompiledCode:
    """What stands for `narrow` in compiled code where its argument is of float32 (or int32), else for `wide`."""

    def make() -> Callable:
        from numba import types
        from numba.extending import overload

        def chosen(x):
            """What Numba looks up; it compiles `implementation` in its place."""

        @overload(chosen, jit_options={"forceinline": True, "fastmath": {"contract", "nsz"}})
        def implementation(x):
            function = narrow if getattr(x, "dtype", x) in (types.float32, types.int32) else wide
            return lambda x: function(x)

        return chosen

    return InCompiledCode(make)


@inline_jit
def assign(target, source):
    """target[:] = source, for which Numba would make a copy in between."""
    for i in range(target.size):
        target[i] = source[i]
