"""Where arrays live and which code works on them: devices, dispatch, and a column of kernels for each device."""
