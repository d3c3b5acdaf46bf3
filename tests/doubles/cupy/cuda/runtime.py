"""Stand-in for `cupy.cuda.runtime`."""

capacity = 8 << 30  # bytes of each device; a test may set it
taken = [0, 0]  # of each device, by pools


class CUDARuntimeError(RuntimeError):
    pass


def getDeviceCount():
    return 2


def getDeviceProperties(device):
    return {"name": b"stand-in for a GPU", "totalGlobalMem": capacity}


def runtimeGetVersion():
    return 13000


def driverGetVersion():
    return 13000


def memGetInfo():
    from cupy import _order

    return capacity - taken[_order.local.device], capacity
