"""Stand-in for `cupy.cuda.runtime`."""


class CUDARuntimeError(RuntimeError):
    pass


def getDeviceCount():
    return 2


def getDeviceProperties(device):
    return {"name": b"stand-in for a GPU", "totalGlobalMem": 8 << 30}


def runtimeGetVersion():
    return 13000


def driverGetVersion():
    return 13000


def memGetInfo():
    return 4 << 30, 8 << 30
