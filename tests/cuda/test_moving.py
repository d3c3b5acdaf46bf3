"""Tensors, models and files that go from one device to another."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, metrics, ops
from dlgpu.backend.devices import device_of
from dlgpu.layers import LSTM, BatchNormalization, Dense, Dropout
from dlgpu.models import Sequential, load_model
from dlgpu.ops.activation import activation

DEVICES = ["cpu", "emulator", "cuda"]
every_pair = pytest.mark.parametrize(("source", "target"), [(a, b) for a in DEVICES for b in DEVICES])
X, Y = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32), np.arange(24) % 2


def made():
    dlgpu.set_random_seed(0)
    model = Sequential([Dense(5, input_dim=3), BatchNormalization(), Dropout(0.2), Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy", "AUC"])
    return model


def fit(model, epochs=1):
    return model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history


@every_pair
def test_a_tensor_goes_there_and_its_gradient_comes_back(source, target):
    x = Tensor(X, device=source, requires_grad=True)
    with dlgpu.device(target):  # the emulator is where host arrays are while it is the current device
        moved = x.to(target)
        assert str(moved.device) == target
        (moved * moved).sum().backward()
    assert type(x.grad.array) is type(x.array)
    np.testing.assert_allclose(x.grad.numpy(), 2 * X, rtol=1e-6)


@every_pair
def test_what_is_saved_on_one_device_goes_on_on_another(source, target, tmp_path):
    with dlgpu.device(source):
        model = made()
        fit(model)
        model.save(tmp_path / "m.dlgpu")
        model.save_weights(tmp_path / "w.safetensors")
        state = dlgpu.ops.random.default_generator().state
        expected, history = model.predict(X), fit(model, 2)
    with dlgpu.device(target):
        again, weights_only = load_model(tmp_path / "m.dlgpu"), made()
        weights_only.load_weights(tmp_path / "w.safetensors")
        assert {str(w.device) for w in again.weights} == {target}
        for loaded in (again, weights_only):
            np.testing.assert_allclose(loaded.predict(X), expected, rtol=1e-5, atol=1e-6)
        dlgpu.ops.random.default_generator().state = state
        for name, value in fit(again, 2).items():
            np.testing.assert_allclose(value, history[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_model_is_moved_in_the_middle_of_training_with_its_optimizer_and_metrics(target):
    def history(moves):
        with dlgpu.device("cuda" if target == "cpu" else "cpu"):
            model = made()
            found = [fit(model)]
            if moves:
                assert model.to(target) is model
            found += [fit(model)]
            assert str(model.device) == (target if moves else str(dlgpu.current_device()))
            assert model.optimizer.iterations == 6
            if moves:
                kept = [a for k in model.optimizer.kept for a in (k.scalars, *k.slots.values())]
                assert {str(device_of(a)) for a in kept} == {target}
                assert {str(v.device) for m in model.metrics for v in m.variables} == {target}
            return found

    for stayed, moved in zip(history(False), history(True)):
        for name, value in stayed.items():
            np.testing.assert_allclose(moved[name], value, rtol=1e-4, err_msg=name)


def test_a_model_elsewhere_takes_arrays_and_tensors_from_anywhere():
    with dlgpu.device("cpu"):
        model = Sequential([LSTM(4, stateful=True, input_shape=(6, 3)), Dense(1)])
    x = np.ones((2, 6, 3), np.float32)
    expected = model(x).numpy()
    model.to("cuda")
    model.layers[0].reset_state()
    for given in (x, Tensor(x), Tensor(x, device="cuda")):
        found = model(given)
        assert str(found.device) == "cuda"
        model.layers[0].reset_state()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    model(x)
    model.to("cpu")  # its state follows
    assert str(model(Tensor(x, device="cuda")).device) == "cpu"


def test_operands_come_together_or_say_where_they_are():
    there, here = Tensor(X, device="cuda"), Tensor(X)
    for result in (there + X, X * there, there - Tensor(2.0, device="cpu"), ops.where(X > 0, there, 0.0),
                   ops.concatenate([there, X]), ops.maximum(np.float32(1), there), there @ X.T):  # fmt: skip
        assert str(result.device) == "cuda"
    np.testing.assert_array_equal((there + X).numpy(), X + X)
    for wrong in (lambda: there + here, lambda: here @ there.T, lambda: ops.concatenate([here, there])):
        with pytest.raises(dlgpu.DeviceError, match=r"one operand is on (cpu|cuda), another on (cpu|cuda): move one"):
            wrong()
    with pytest.raises(dlgpu.DeviceError, match="bias_activation: the first array is on a GPU, another is not"):
        activation(there, "relu", Tensor(X[0]))


def test_metrics_and_losses_take_labels_from_the_host():
    scores = Tensor(np.float32([0.9, 0.2, 0.6]), device="cuda")
    for labels in (np.array([1, 0, 0]), [1, 0, 0], Tensor(np.array([1, 0, 0]))):
        assert float(metrics.BinaryAccuracy()(labels, scores)) == pytest.approx(2 / 3)
        assert float(metrics.AUC()(labels, scores, [1.0, 1.0, 1.0])) == 1
        assert dlgpu.losses.BinaryCrossentropy()(labels, scores).device == scores.device
    with dlgpu.device("cpu"):
        metric = metrics.Precision()
    assert float(metric([1, 0, 0], scores)) == 0.5
    assert float(metric.to("cuda")([1, 0, 0], scores)) == 0.5


def test_numbers_and_weights_are_made_on_the_current_device_and_arrays_stay():
    for name in DEVICES:
        with dlgpu.device(name):
            layer = Dense(2, input_dim=3)
            layer(np.ones((1, 3), np.float32))
            for made_there in (layer.kernel, Tensor([1.0]), Tensor(2), Tensor(X, device=name)):
                assert str(made_there.device) == name
    assert str(Tensor(X).device) == "cpu"


class Foreign:
    """An array of a third library, such as PyTorch's on a GPU: not CuPy's, but in memory that CuPy can use."""

    __module__ = "torch"

    def __init__(self, array, dlpack):
        self.dtype, self.shape, self.array = "torch.float32", array.shape, array
        if dlpack:
            self.__class__ = ForeignWithDLPack

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__


class ForeignWithDLPack(Foreign):
    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dlpack", [True, False])
def test_arrays_of_other_libraries_on_the_gpu_come_in_and_go_out_without_a_copy(cupy, dlpack):
    array = cupy.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = Tensor(Foreign(array, dlpack))
    assert type(tensor.array) is cupy.ndarray
    assert (str(tensor.device), tensor.array.data.ptr) == ("cuda", array.data.ptr)
    array *= 2
    np.testing.assert_array_equal(tensor.numpy(), 2 * np.arange(6).reshape(2, 3))
    assert tensor.__dlpack_device__() == (2, 0)
    assert cupy.from_dlpack(tensor).data.ptr == cupy.asarray(tensor).data.ptr == array.data.ptr
    strided = Tensor(Foreign(array[:, ::2], dlpack))
    assert (strided.array.strides, strided.array.data.ptr) == (array[:, ::2].strides, array.data.ptr)
    assert str(Tensor(Foreign(array, dlpack), device="cpu").device) == "cpu"
    model = made()
    model.fit(Foreign(cupy.asarray(X), dlpack), Foreign(cupy.asarray(Y), dlpack), verbose=0)


def test_cupys_arrays_are_data_and_labels_too(cupy):
    model = made()
    with pytest.raises(ValueError, match="expected labels from 0 to 1; row 3 holds 7"):
        model.fit(X, cupy.asarray(np.where(np.arange(24) == 3, 7, Y)), verbose=0)
    model.fit(X, cupy.asarray(Y), class_weight={0: 2.0}, sample_weight=cupy.ones(24), verbose=0)
    history = model.fit(cupy.asarray(X), cupy.asarray(Y), validation_split=0.25, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert model.predict(cupy.asarray(X)).shape == (24, 1)
    with pytest.raises(ValueError, match=r"y: row 3 holds NaN"):
        model.fit(X, cupy.asarray(np.where(np.arange(24) == 3, np.nan, Y)), verbose=0)


def test_a_misused_tensor_says_so():
    x = Tensor(X, device="cuda")
    with pytest.raises(TypeError):
        np.exp(x)
    assert [10, 20][Tensor(1, device="cuda")] == 20
    assert "device='cuda'" in repr(x)
    assert f"{x.sum():.3f}" == f"{X.sum():.3f}"
    np.testing.assert_array_equal(np.asarray(x), X)
