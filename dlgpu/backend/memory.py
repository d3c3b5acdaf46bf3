"""Memory of devices: how errors say that there is too little, how much is there, and giving back what is spare."""

import gc

from dlgpu.backend.devices import Device

# what CUDA's runtime and driver and its libraries call it, in errors that are no MemoryError
SIGNS = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "STATUS_ALLOC_FAILED")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and any(s in str(error) for s in SIGNS))


def figures(device: Device) -> dict[str, int]:
    """Bytes of a GPU's memory: "used" by arrays, "spare" in the array library's pool, "free" and "all" of the device.

    Empty for a host, whose memory is shared with everything else.
    """
    if device.on_host:
        return {}
    cupy = device.array_namespace
    with cupy.cuda.Device(device.index):
        pool, (free, everything) = cupy.get_default_memory_pool(), cupy.cuda.runtime.memGetInfo()
        return {"used": pool.used_bytes(), "spare": pool.free_bytes(), "free": free, "all": everything}


def give_back(device: Device) -> None:
    """Let the device have what nobody refers to; waits for it."""
    gc.collect()
    if not device.on_host:
        with device.array_namespace.cuda.Device(device.index):
            device.array_namespace.get_default_memory_pool().free_all_blocks()
