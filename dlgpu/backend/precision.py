"""How exact products of float32 are where a device offers less for more speed."""

_tf32 = [False]


def allow_tf32(allowed: bool = True) -> None:
    """Let tensor cores multiply float32, in products and convolutions on NVIDIA GPUs from compute capability 8.0 on.

    They round what they multiply to TF32, which has float32's range but 10 bits after the point, so that results have
    relative errors of some 2^-11; sums stay float32. It is off by default, and float32 is as exact as on every device.
    float16 and bfloat16, which lose nothing by it, always use tensor cores. A model that is being trained goes by it
    from the next epoch on.

    Args:
        allowed: False turns it off again.
    """
    _tf32[0] = bool(allowed)


def tf32_allowed() -> bool:
    """Whether `allow_tf32` was called."""
    return _tf32[0]
