"""Products by cuBLASLt, as the stand-in for nvmath-python computes and checks them."""

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import activation, cublaslt
from dlgpu.backend.dispatch import registry
from dlgpu.ops.activation import fuses
from tests.cuda.captured import PROGRAMS, RNG, assert_same_bits, captured, fit, model_of
from tests.cuda.test_stand_in_graph import Counted, steady
from tests.ops import test_dense_chain

CACHED = cublaslt.bindings, cublaslt.plan, cublaslt._of_device, cublaslt._keeps_nan
CACHED += activation._multiplies_by_slope, activation._writes_masks
OTHERS = [(np.float64, 1e-14), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)]  # dtypes, and what they round
TRIED = ["DRELU", "DEFAULT", "RELU_AUX"]  # relu's gradient against a plain product, and whether NaN goes through it


@pytest.fixture
def lt(monkeypatch):
    """The stand-in's module, installed."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "doubles" / "nvidia")
    for cached in CACHED:
        cached.cache_clear()
    module = cublaslt.bindings()[0]
    module.matmuls.clear()
    yield module
    for cached in CACHED:
        cached.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == "nvmath"]:
        del sys.modules[name]


def of_reference(name, *args):
    """The reference's result on NumPy's arrays, in float64."""
    wide = [np.asarray(a, np.float64) if getattr(a, "dtype", np.dtype(int)).kind in "fV" else a for a in args]
    return registry[name].reference(*wide)


@fuses("gelu_tanh")
def gelu_tanh(x):
    return dlgpu.activations.gelu(x, approximate=True)


def unpacked(mask, columns):
    """The bits of a mask, as booleans."""
    assert mask.dtype == np.uint32
    assert mask.shape[-1] * 32 == -(-columns // 128) * 128
    return np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., :columns].astype(bool)


def agree(lt, cupy, name, *args, epilogues, rtol=2e-6):
    """The kernel gives what its reference gives, by these products and no others."""
    lt.matmuls.clear()
    found = registry[name](*(cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args))
    wanted = of_reference(name, *args)
    pairs = zip(found, wanted) if isinstance(found, tuple) else [(found, wanted)]
    for f, w in pairs:
        if f is not None and f.dtype == np.uint32:
            np.testing.assert_array_equal(unpacked(f.get(), w.shape[-1]), w > 0)
        elif w is not None:
            scale = np.abs(w).max(initial=1e-30)
            np.testing.assert_allclose(f.get().astype(np.float64), w, rtol=0, atol=rtol * scale * 10)
    assert [m for m in lt.matmuls if m] == epilogues


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def test_float32_is_rounded_where_tf32_is_allowed_and_nowhere_else(lt, cupy):
    a, b = 1 + 2.0**-12 * np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    exact = registry["matmul"](cupy.asarray(a), cupy.asarray(b)).get()
    try:
        dlgpu.allow_tf32()
        rounded = registry["matmul"](cupy.asarray(a), cupy.asarray(b)).get()
        double = registry["matmul"](*(cupy.asarray(x.astype(np.float64)) for x in (a, b))).get()
    finally:
        dlgpu.allow_tf32(False)
    assert lt.matmuls == ["DEFAULT"] * 3
    assert (exact == a).all()
    assert (double == a).all()
    assert (rounded == 1).all()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 7), (33, 65, 17), (8, 600, 3)])
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
def test_matrices_by_rows_are_matrices_by_columns_turned_around(sizes, a_turned, b_turned, lt, cupy):
    rows, inner, columns = sizes
    a = cupy.asarray(normal(inner, rows)).T if a_turned else cupy.asarray(normal(rows, inner))
    b = cupy.asarray(normal(columns, inner)).T if b_turned else cupy.asarray(normal(inner, columns))
    wanted = a.get().astype(np.float64) @ b.get()
    np.testing.assert_allclose(registry["matmul"](a, b).get(), wanted, rtol=0, atol=1e-5 * inner**0.5)
    assert lt.matmuls == ["DEFAULT"]


@pytest.mark.parametrize("stacks", [((3,), (3,)), ((2, 1), (3,)), ((), (2, 3)), ((4,), ()), ((1,), (5, 1))])
def test_stacks_are_one_product(stacks, lt, cupy):
    agree(lt, cupy, "matmul", normal(*stacks[0], 5, 7), normal(*stacks[1], 7, 6), epilogues=["DEFAULT"])


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0)])
def test_what_is_empty_is_no_product(shape, lt, cupy):
    rows, inner, columns = shape
    agree(lt, cupy, "matmul", normal(rows, inner), normal(inner, columns), epilogues=[])


@pytest.mark.parametrize(("dtype", "rtol"), OTHERS)
def test_other_types(dtype, rtol, lt, cupy):
    a, b = normal(5, 9, dtype=dtype), normal(9, 8, dtype=dtype)
    agree(lt, cupy, "matmul", a, b, epilogues=["DEFAULT"], rtol=rtol / 10)


@pytest.mark.parametrize(
    ("name", "units", "epilogues"),
    [
        ("linear", 7, ["BIAS"]),
        ("relu", 7, [*TRIED, "RELU_AUX_BIAS"]),
        ("relu", 300, [*TRIED, "RELU_AUX_BIAS"]),
        ("gelu_tanh", 16, ["GELU_AUX", "GELU_AUX_BIAS"]),
        ("gelu_tanh", 7, ["BIAS"]),
        ("tanh", 7, ["BIAS"]),
        ("gelu", 7, ["BIAS"]),
    ],
)
def test_dense_adds_its_bias_and_activation_as_it_writes(name, units, epilogues, lt, cupy):
    arrays = normal(6, 5), normal(5, units), normal(units)
    agree(lt, cupy, "dense", *arrays, name, epilogues=epilogues)
    without = epilogues[-1].replace("_BIAS", "").replace("BIAS", "DEFAULT")
    agree(lt, cupy, "dense", *arrays[:2], None, name, epilogues=[without])


def test_what_an_activation_keeps_of_a_stack_is_where_it_belongs(lt, cupy):
    a, b = normal(3, 5, 7), normal(3, 7, 8)
    output, kept = cublaslt.product(cupy.asarray(a), cupy.asarray(b), None, "gelu_tanh")
    np.testing.assert_allclose(kept.get(), a @ b, rtol=0, atol=1e-5)
    wanted = of_reference("bias_activation", a @ b, None, "gelu_tanh")[0]
    np.testing.assert_allclose(output.get(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("needed", [(True, True, True), (False, True, True), (True, True, False), (False, False, True)])
def test_the_gradient_of_the_bias_comes_with_that_of_the_kernel(needed, lt, cupy):
    grad, x, kernel, saved = normal(6, 7), normal(6, 5), normal(5, 7), normal(6, 7)
    of_kernel = [] if not needed[1] else ["BGRADA"] if needed[2] else ["DEFAULT"]
    alone = ["DEFAULT"] if needed[2] and not needed[1] else []
    wanted = ["DEFAULT"] * needed[0] + of_kernel + alone
    agree(lt, cupy, "dense_backward", grad, x, kernel, saved, "relu", needed, epilogues=wanted)


def chain(cupy, name, rows=6, units=16, following=5, dtype=np.float32):
    """What a dense layer keeps, and the gradient by its activation's input, which comes through the next one."""
    shapes = (rows, 9), (9, units), (units, following), (rows, following)
    x, kernel, after, grad = (normal(*shape, dtype=dtype) for shape in shapes)
    saved = registry["dense"](cupy.asarray(x), cupy.asarray(kernel), None, name)[1]
    found = registry["dense_activation_backward"](cupy.asarray(grad), cupy.asarray(after), saved, name)
    wide = [np.asarray(a, np.float64) for a in (grad, after, x, kernel)]
    kept = registry["dense"].reference(*wide[2:], None, name)[1]
    return saved, found.get().astype(np.float64), registry["dense_activation_backward"].reference(*wide[:2], kept, name)


@pytest.mark.parametrize("shape", [(6, 16, 5), (1, 8, 2), (33, 128, 7), (5, 264, 40), (3, 7, 2)])
@pytest.mark.parametrize(("name", "epilogue"), [("relu", "DRELU"), ("gelu_tanh", "DGELU")])
def test_the_gradient_of_an_activation_comes_with_the_product_before_it(name, epilogue, shape, lt, cupy):
    chain(cupy, name)
    lt.matmuls.clear()
    _, found, wanted = chain(cupy, name, *shape)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * abs(wanted).max() + 1e-6)
    fits = name == "relu" or shape[1] % 8 == 0
    assert lt.matmuls[-1] == (epilogue if fits else "DEFAULT")
    assert len(lt.matmuls) == 2


@pytest.mark.parametrize(("name", "following"), [("relu", 1), ("tanh", 3), ("relu", 0)])
def test_what_has_no_such_gradient_is_a_product_and_a_kernel(name, following, lt, cupy):
    chain(cupy, "relu")
    lt.matmuls.clear()
    _, found, wanted = chain(cupy, name, following=following)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert set(lt.matmuls) <= {"DEFAULT", "RELU_AUX"}


@pytest.mark.parametrize(("dtype", "rtol"), OTHERS)
@pytest.mark.parametrize("name", ["relu", "gelu_tanh"])
def test_gradients_of_activations_in_other_types(name, dtype, rtol, lt, cupy):
    _, found, wanted = chain(cupy, name, dtype=dtype)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * rtol * abs(wanted).max())
    assert lt.matmuls[-1] == {"relu": "DRELU", "gelu_tanh": "DGELU"}[name]


def test_relu_keeps_a_bit_for_each_value_in_place_of_its_output(lt, cupy):
    saved, _, _ = chain(cupy, "relu", rows=64, units=256)
    assert saved.nbytes == 64 * 256 // 8
    assert chain(cupy, "relu", rows=64, units=129)[0].nbytes == 64 * 256 // 8


def hides_nan_from(z, bits):
    return np.where(bits, np.nan_to_num(z), 0)


def ends_at_zero(z):
    return z >= 0


def test_a_gradient_that_hides_nan_is_not_used(lt, cupy, monkeypatch):
    monkeypatch.setattr(lt, "where_above", hides_nan_from)
    saved, found, wanted = chain(cupy, "relu")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert saved.dtype == np.float32
    assert lt.matmuls == ["DRELU", "DEFAULT", "RELU", "RELU", "DEFAULT"]


def test_nan_may_go_with_what_is_0_and_stays_elsewhere(lt, cupy):
    z = np.array([[1.0, -1.0] * 8] * 3, np.float32)
    grad, after = normal(3, 4), normal(16, 4)
    grad[1, 2] = np.nan
    saved = registry["dense"](cupy.asarray(z), cupy.asarray(np.eye(16, dtype=np.float32)), None, "relu")[1]
    found = registry["dense_activation_backward"](cupy.asarray(grad), cupy.asarray(after), saved, "relu").get()
    assert lt.matmuls[-1] == "DRELU"
    assert np.isnan(found[1, ::2]).all()
    assert not np.isnan(found[[0, 2]]).any()


def test_a_kink_on_the_other_side_is_not_taken_over(lt, cupy, monkeypatch):
    """The derivative at 0 is 0; a library that sets the bit there must not write the masks, but may read them."""
    monkeypatch.setattr(lt, "above", ends_at_zero)
    x, kernel = np.zeros((4, 5), np.float32), normal(5, 40)
    x[0] = 1
    output, mask = registry["dense"](cupy.asarray(x), cupy.asarray(kernel), None, "relu")
    assert lt.matmuls == [*TRIED, "DEFAULT"]
    np.testing.assert_array_equal(unpacked(mask.get(), 40), output.get() > 0)
    chain(cupy, "relu")
    assert lt.matmuls[-2:] == ["DEFAULT", "DRELU"]


def test_gelus_that_differ_are_not_taken_for_each_other(lt, cupy, monkeypatch):
    monkeypatch.setattr(lt, "_gelu_slope", lambda z: z * 0 + z.dtype.type(0.5))
    _, found, wanted = chain(cupy, "gelu_tanh")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert lt.matmuls[-1] == "DEFAULT"


@pytest.mark.parametrize(
    ("refused", "kept"),
    [("through", np.uint32), ("masked", np.float32)],
    ids=["a mask is read by the kernel", "an output that is kept is not taken for a mask"],
)
def test_without_a_plan_for_relu_or_its_gradient_the_kernels_take_its_place(refused, kept, lt, cupy, monkeypatch):
    chain(cupy, "relu")
    product = cublaslt.product
    monkeypatch.setattr(cublaslt, "product", lambda *a, **k: None if k.get(refused) else product(*a, **k))
    saved, found, wanted = chain(cupy, "relu")
    assert saved.dtype == kept
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "epilogue"), [("relu", "DRELU"), ("gelu_tanh", "DGELU")])
def test_gradients_of_layers_in_a_row_are_those_of_the_plain_operations(name, epilogue, lt):
    with dlgpu.device("cuda"):
        test_dense_chain.test_gradients_are_those_of_the_plain_operations(name, (2, 3))
    assert lt.matmuls.count(epilogue) == 3  # when it is tried, and where no other gradient comes to the hidden output


def deep(*others):
    first = layers.Dense(24, "relu"), layers.Dense(16, gelu_tanh), layers.Dense(8, "relu")
    return *first, *others, layers.Dense(9, "relu"), layers.Dense(3)


@pytest.mark.parametrize("rule", [{}, {"above": ends_at_zero}, {"where_above": hides_nan_from}])
def test_a_model_trains_as_without_the_library(rule, lt, monkeypatch):
    x, y = RNG.standard_normal((24, 6)).astype(np.float32), RNG.standard_normal((24, 3)).astype(np.float32)
    for name, function in rule.items():
        monkeypatch.setattr(lt, name, function)

    def trained():
        dlgpu.set_random_seed(4)
        with dlgpu.device("cuda"):
            model = model_of(*deep(), loss="mse")
            model.fit(x, y, batch_size=8, epochs=4, verbose=0)
            assert captured(model) == [True]
            return [w.numpy() for w in model.weights]

    found = trained()
    assert (lt.matmuls.count("DRELU") > 1) == ("where_above" not in rule)  # once it is tried
    assert lt.matmuls.count("DGELU") > 1
    monkeypatch.setenv("DLGPU_CUBLASLT", "0")
    cublaslt.bindings.cache_clear()
    for f, w in zip(found, trained()):
        np.testing.assert_allclose(f, w, rtol=0, atol=1e-4)


def test_a_captured_step_with_gradients_in_its_products_gives_the_same_bits(lt):
    x, y = RNG.standard_normal((20, 2, 6)).astype(np.float32), RNG.standard_normal((20, 2, 3)).astype(np.float32)
    model = assert_same_bits(
        lambda **c: model_of(*deep(layers.Dropout(0.3)), loss="mse", **c),
        lambda m: fit(m, x, y, batch_size=4, epochs=3),
    )
    assert captured(model) == [True]
    assert {"DRELU", "DGELU", "RELU_AUX_BIAS", "GELU_AUX_BIAS"} <= set(lt.matmuls)


def test_nan_is_handed_on_by_an_activation_that_would_hide_it(lt, cupy, monkeypatch):
    monkeypatch.setattr(lt.np, "maximum", np.fmax)  # as hardware has it
    x, kernel = normal(4, 5), normal(5, 3)
    x[2, 1] = np.nan
    output, _ = registry["dense"](cupy.asarray(x), cupy.asarray(kernel), None, "relu")
    assert np.isnan(output.get()[2]).all()
    assert lt.matmuls == [*TRIED, "DEFAULT"]


def test_a_plan_is_made_once_for_each_shape_and_alignment(lt, cupy, monkeypatch):
    asked, heuristic = [], lt.matmul_algo_get_heuristic
    monkeypatch.setattr(lt, "matmul_algo_get_heuristic", lambda *a: asked.append(a) or heuristic(*a))
    a, b = (cupy.asarray(normal(*s)) for s in ((4, 8), (8, 4)))
    for count, bytes_ in ((1, 16), (1, 16), (2, 4), (2, 16)):
        monkeypatch.setattr(cublaslt, "alignment", lambda x, bytes_=bytes_: bytes_)
        registry["matmul"](a, b)
        assert len(asked) == count


def test_alignments_are_those_of_addresses(lt, cupy):
    x = cupy.asarray(normal(64))
    start = 16 - x.data.ptr % 64 // 4
    assert [cublaslt.alignment(x[start + at :]) % 64 for at in (1, 2, 3, 4, 6, 8)] == [4, 8, 4, 16, 8, 32]


def test_a_library_that_cannot_be_loaded_is_left_out(lt, monkeypatch):
    def missing():
        raise LookupError("libcublasLt.so")

    monkeypatch.setattr(lt, "get_version", missing)
    cublaslt.bindings.cache_clear()
    assert cublaslt.bindings() is None


def test_what_the_library_does_not_do_the_kernel_does(lt, cupy, monkeypatch):
    def unsupported(*args):
        raise lt.cuBLASLtError(15)

    monkeypatch.setattr(lt, "matmul_algo_get_heuristic", unsupported)
    agree(lt, cupy, "matmul", normal(5, 9), normal(9, 4), epilogues=[])
    agree(lt, cupy, "dense", normal(5, 9), normal(9, 4), normal(4), "relu", epilogues=[])
    arrays = (normal(*shape) for shape in ((5, 4), (5, 9), (9, 4), (5, 4)))
    agree(lt, cupy, "dense_backward", *arrays, "relu", (True,) * 3, epilogues=[])


def test_it_can_be_left_out(lt, monkeypatch):
    monkeypatch.setenv("DLGPU_CUBLASLT", "0")
    cublaslt.bindings.cache_clear()
    assert cublaslt.bindings() is None


@pytest.mark.parametrize("name", ["fnn", "lstm"])
def test_a_captured_step_holds_these_products(name, lt):
    shape, network = PROGRAMS[name]
    x, y = RNG.standard_normal((20, *shape), np.float32), RNG.integers(0, 2, (20, 1)).astype(np.float32)
    model = assert_same_bits(
        lambda **c: model_of(*network(), loss="mse", **c), lambda m: fit(m, x, y, batch_size=4, epochs=3)
    )
    assert captured(model) == [True]
    assert {"BIAS", "BGRADA"} <= set(lt.matmuls)


def test_a_steady_step_of_these_products_waits_for_nothing(lt, monkeypatch):
    counted = Counted(monkeypatch)
    network = (
        layers.Dense(16),
        layers.Dense(5, activation="relu"),
        layers.Dense(3),
        layers.Dense(8, activation=gelu_tanh),
        layers.Dense(2),
        layers.Dense(1, "sigmoid"),
    )
    with dlgpu.device("cuda"):
        step, batches = steady(model_of(*network))
    counted.of(step, [next(batches)])
    assert counted.of(step, batches) == (0, 0, [])
    assert {"BIAS", "RELU_AUX_BIAS", "BGRADA", "DRELU", "GELU_AUX_BIAS", "DGELU"} <= set(lt.matmuls)
