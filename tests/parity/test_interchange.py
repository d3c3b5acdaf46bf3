"""Arrays go to PyTorch and come from it in the same memory."""

import numpy as np
import pytest
import torch

import dlgpu
from dlgpu import Tensor
from dlgpu.layers import Dense
from dlgpu.models import Sequential


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool])
def test_both_ways_without_a_copy(dtype):
    theirs = torch.arange(6).reshape(2, 3).to(dtype)
    for given in (theirs, theirs.T, theirs[:, ::2], theirs[0, 0]):  # contiguous or not
        ours = Tensor(given)
        assert (type(ours.array), ours.shape) == (np.ndarray, tuple(given.shape))
        assert str(ours.dtype) == str(dtype).removeprefix("torch.")
        assert str(ours.device) == "cpu"
        assert ours.array.ctypes.data == given.data_ptr()
        back = torch.from_dlpack(ours)
        assert back.data_ptr() == given.data_ptr()
        assert back.stride() == given.stride()
    ours = Tensor(theirs)
    ours.array[0, 1] = 0
    theirs[1, 0] = 0
    assert not bool(theirs[0, 1])
    assert not bool(ours.array[1, 0])
    torch.from_dlpack(Tensor(np.ones(3, np.float32))).mul_(2)


def test_what_pytorch_does_not_hand_over_is_its_own_clear_error():
    with pytest.raises((RuntimeError, BufferError), match="detach"):
        Tensor(torch.ones(2, requires_grad=True))
    assert Tensor(torch.ones(2, requires_grad=True).detach()).numpy().sum() == 2


def test_a_tensor_of_pytorch_stays_on_the_cpu_whatever_the_current_device_and_can_be_moved():
    with dlgpu.device("emulator"):
        assert str(Tensor(torch.ones(2)).device) == "emulator"  # where host arrays are, while it is current
    assert Tensor(torch.ones(2), dtype=np.float64).dtype == np.float64


def test_pytorchs_tensors_are_data_and_operands():
    model = Sequential([Dense(1, input_dim=3)])
    model.compile(loss="mse")
    x, y = torch.ones(8, 3), torch.zeros(8, 1)
    model.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), model(x).numpy())
    np.testing.assert_array_equal((Tensor(np.ones((8, 3))) + x).numpy(), 2)
