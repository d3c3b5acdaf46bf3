"""grad, value_and_grad, backward and operations of the user's own; memory that goes when the loss goes."""

import gc
import weakref

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, autograd, ops
from dlgpu.ops.differentiation import pull_back, with_composite
from dlgpu.tensor import record, wrap
from dlgpu.testing import gradcheck

X = np.array([0.5, -1.5, 2.0])


def cubes(x):
    return (x**3).sum()


def test_grad_and_value_and_grad():
    np.testing.assert_array_equal(dlgpu.grad(cubes)(X).numpy(), 3 * X**2)
    value, grad = dlgpu.value_and_grad(cubes)(Tensor(X))
    assert value.item() == (X**3).sum()
    assert not value.requires_grad
    assert not grad.requires_grad


def test_several_arguments_and_keywords():
    def function(a, b, c, factor=1.0):
        return (a * b * b).sum() * factor + (c * 0).sum()

    by_b = dlgpu.grad(function, 1)(X, X + 1, X)
    np.testing.assert_array_equal(by_b.numpy(), 2 * X * (X + 1))
    by_both = dlgpu.grad(function, (1, 0))(X, X + 1, X, factor=2.0)
    np.testing.assert_array_equal(by_both[0].numpy(), 4 * X * (X + 1))
    np.testing.assert_array_equal(by_both[1].numpy(), 2 * (X + 1) ** 2)


def test_what_the_value_does_not_depend_on_has_gradient_zero():
    grads = dlgpu.grad(lambda a, b: (a * 2).sum(), (0, 1))(X, np.array([np.nan, np.inf]))
    np.testing.assert_array_equal(grads[1].numpy(), [0, 0])
    assert dlgpu.grad(lambda x: Tensor(1.0))(X).numpy().tolist() == [0, 0, 0]


def test_nested_gradients():
    x = np.float64(0.7)
    derivatives = [cubes(Tensor(x)).item(), 3 * x**2, 6 * x, 6.0, 0.0]
    function = cubes
    for expected in derivatives:
        assert function(Tensor(x)).item() == pytest.approx(expected)
        function = dlgpu.grad(function)

    def of_two(x, y):  # a gradient by one argument inside of a gradient by another
        return (dlgpu.grad(lambda y: (x * y**3).sum())(y) * x).sum()

    np.testing.assert_allclose(dlgpu.grad(of_two)(X, X + 3).numpy(), 6 * X * (X + 3) ** 2)


def test_pull_back_gives_constants_unless_asked_otherwise():
    x, unused = Tensor(X, requires_grad=True), Tensor(X, requires_grad=True)
    found, missing = pull_back([x * x, Tensor(1.0)], [Tensor(np.ones(3)), None], [x, unused])
    np.testing.assert_array_equal(found.numpy(), 2 * X)
    assert not found.requires_grad
    assert missing is None
    assert pull_back([x * x], [Tensor(np.ones(3))], [x], create_graph=True)[0].requires_grad


def test_create_graph_records_the_gradient():
    x = Tensor(X, requires_grad=True)
    value, grad = dlgpu.value_and_grad(cubes, create_graph=True)(x)
    assert value.requires_grad
    (grad * grad).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 36 * X**3)

    y = Tensor(X, requires_grad=True)
    cubes(y).backward(create_graph=True)
    first, y.grad = y.grad, None
    first.sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), 6 * X)


def test_backward_adds_to_grad_of_leaves_only():
    x, constant = Tensor(X, requires_grad=True), Tensor(X)
    middle = x * constant
    loss = (middle * middle).sum() + x.sum()
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * X**3 + 1)
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * X**3 + 2)
    assert middle.grad is None
    assert constant.grad is None


def test_backward_of_many_values_takes_a_factor():
    x = Tensor(X, requires_grad=True)
    (x * x).backward(Tensor([1.0, 2.0, 3.0], dtype=np.float64))
    np.testing.assert_array_equal(x.grad.numpy(), 2 * X * [1, 2, 3])
    with pytest.raises(ValueError, match=r"of shape \(3,\) needs a gradient"):
        (x * x).backward()
    with pytest.raises(ValueError, match=r"expected a gradient of shape \(3,\), got \(2,\)"):
        (x * x).backward(np.ones(2))
    with pytest.raises(ValueError, match="does not depend"):
        Tensor(X).backward()


def test_a_tensor_used_many_times_gathers_all_gradients():
    def wide(x):
        total = x
        for i in range(50):
            total = total + x * i
        return total.sum()

    np.testing.assert_array_equal(dlgpu.grad(wide)(X).numpy(), np.full(3, 1 + sum(range(50))))


def test_only_needed_gradients_are_computed():
    def refuse(grad):
        raise AssertionError("nobody asked for this gradient")

    a, b = Tensor(X, requires_grad=True), Tensor(X)
    record(X * X, (a, b), (lambda grad: grad * b, refuse)).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), X)


def test_the_walk_ends_at_what_is_asked_for():
    def refuse(grad):
        raise AssertionError("the walk went past the input")

    before = record(X, (Tensor(X, requires_grad=True),), lambda grad: (refuse(grad),))
    np.testing.assert_array_equal(dlgpu.grad(cubes)(before).numpy(), 3 * X**2)


def test_no_grad_is_a_context_and_a_decorator():
    x = Tensor(X, requires_grad=True)
    with dlgpu.no_grad():
        assert not (x * 2).requires_grad
        assert dlgpu.grad(cubes)(x).numpy().tolist() == (3 * X**2).tolist()  # grad records for itself
        with autograd.set_recording(True):
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @dlgpu.no_grad()
    def doubled(x):
        return x * 2

    assert not doubled(x).requires_grad
    assert not doubled(x).requires_grad
    with pytest.raises(ZeroDivisionError), dlgpu.no_grad():
        raise ZeroDivisionError
    assert autograd.recording()


def test_grad_needs_one_floating_value():
    with pytest.raises(ValueError, match=r"it returned shape \(3,\)"):
        dlgpu.grad(lambda x: x * 2)(X)
    with pytest.raises(ValueError, match="it returned float"):
        dlgpu.grad(lambda x: 1.0)(X)
    with pytest.raises(TypeError, match="only floating"):
        dlgpu.grad(cubes)(np.arange(3))


@dlgpu.custom_vjp
def cube(x, factor):
    return factor * x * x * x


@cube.defvjp
def cube_vjp(grad, output, x, factor):
    return grad * 3 * factor * x * x, None


def test_an_operation_of_the_users_own():
    x = Tensor(X, requires_grad=True)
    output = cube(x, 2.0)
    np.testing.assert_array_equal(output.numpy(), 2 * X**3)
    assert cube.__name__ == "cube"
    gradcheck(lambda x: cube(x, 2.0) * x, X)


def test_an_operation_with_an_array_vjp_works_once_and_says_so_the_second_time():
    @dlgpu.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda grad, output, x: np.float64(2) * grad.array)
    gradcheck(lambda x: double(x) * x.shape[0], X, second=False)
    small = dlgpu.grad(lambda x: double(x).sum())(X.astype(np.float32))
    assert small.dtype == np.float32  # though the vjp made float64
    with pytest.raises(ValueError, match="double returned plain arrays, so it cannot be differentiated again"):
        dlgpu.grad(lambda x: dlgpu.grad(lambda x: double(x).sum())(x).sum())(X)


def test_mistakes_in_an_operation_of_the_users_own():
    @dlgpu.custom_vjp
    def double(x):
        return x * 2

    def slope():
        return dlgpu.grad(lambda x: double(x).sum())(X)

    with pytest.raises(ValueError, match="double has no derivative"):
        slope()
    double.defvjp(lambda grad, output, x: (grad, grad))
    with pytest.raises(ValueError, match="returned 2 gradients for 1 inputs"):
        slope()
    double.defvjp(lambda grad, output, x: grad[:2])
    with pytest.raises(ValueError, match=r"expected a gradient of shape \(3,\) for input 0, got \(2,\)"):
        slope()
    double.defvjp(lambda grad, output, x: 2.0)
    with pytest.raises(ValueError, match=r"for input 0, got \(\)"):
        slope()
    with pytest.raises(TypeError, match="must return one array, got tuple"):
        dlgpu.custom_vjp(lambda x: (x, x))(X)
    with pytest.raises(TypeError, match="must return one array, got Tensor"):
        dlgpu.custom_vjp(lambda x: Tensor(x))(X)


def test_a_kernel_with_a_composite_is_right_the_second_time():
    def square(x):
        x = x if isinstance(x, Tensor) else Tensor(x)
        vjp = with_composite(lambda grad: (wrap(grad.array * 2 * x.array),), lambda x: x * x, (x,))
        return record(x.array * x.array, (x,), vjp)

    gradcheck(lambda x: square(square(x) + 1) * x, X)


def test_composites_in_a_chain_take_time_linear_in_its_length():
    calls = []

    def composite(x):
        calls.append(x)
        return x * x

    def square(x):
        return record(x.array * x.array, (x,), with_composite(lambda grad: (grad,), composite, (x,)))

    def chain(x):
        for _ in range(12):
            x = square(x)
        return x.sum()

    dlgpu.grad(chain, create_graph=True)(np.ones(2))
    assert len(calls) == 12


def test_gradcheck_finds_wrong_derivatives():
    @dlgpu.custom_vjp
    def wrong(x):
        return x * x

    wrong.defvjp(lambda grad, output, x: grad * x)
    with pytest.raises(AssertionError, match="first derivative by input 0"):
        gradcheck(wrong, X)
    wrong.defvjp(lambda grad, output, x: grad * 2 * ops.stop_gradient(x))
    with pytest.raises(AssertionError, match="second derivative by input 0"):
        gradcheck(wrong, X)
    gradcheck(wrong, X, second=False)
    with pytest.raises(AssertionError, match="first derivative by input 1"):
        gradcheck(lambda a, b: a * ops.stop_gradient(b), Tensor(X), X)
    with pytest.raises(ValueError, match="at least one floating"):
        gradcheck(cubes, np.arange(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.exp(x).sum(),
        lambda x: (x / (x * x + 1)).sum(),
        lambda x: ops.sqrt(ops.tanh(x) + 2).mean(),
        lambda x: (ops.logsumexp(x) * ops.max(x) + ops.var(x)) ** 2.0,
        lambda x: ops.layer_normalization(ops.concatenate([x, x], 1)).sum(),
        lambda x: ops.batch_normalization(x)[0][:, ::2].sum(),
        lambda x: cube(x, 2.0).sum(),
        lambda x: ops.where(x > 0, x, ops.clip(x, -1, 0)).sum(),
        lambda x: ops.gather(x, np.array([0, 0, 1])).sum(),
    ],
)
def test_memory_goes_with_the_loss_and_without_the_garbage_collector(function):
    x = Tensor(np.random.default_rng(0).normal(size=(3, 4)), requires_grad=True)
    (function(x * 1.5) * x.sum() + (x * x).sum()).backward()  # compiles what it needs, which leaves cycles
    gc.collect()
    gc.disable()
    try:
        middle = x * 1.5
        held = weakref.ref(middle.array)
        loss = function(middle) * middle.sum() + (middle * middle).sum()
        del middle
        assert held() is not None
        loss.backward()
        del loss
        assert held() is None
        assert gc.collect() == 0  # no cycle of anything else either
    finally:
        gc.enable()


def test_a_long_chain_is_freed_without_recursion():
    x = Tensor(np.zeros(1), requires_grad=True)
    total = x
    for _ in range(20000):
        total = total + 1
    total.backward()
    del total
    assert x.grad.item() == 1


def test_gradients_by_weights_reach_those_that_the_function_closes_over(rng):
    weight = Tensor(rng.standard_normal((3, 2)), requires_grad=True)
    bias = Tensor(rng.standard_normal(2), requires_grad=True)
    x = rng.standard_normal((5, 3))

    def loss(*unused):
        return ((x @ weight + bias) ** 2).sum()

    expected = ops.grad(lambda w, b: ((x @ w + b) ** 2).sum(), (0, 1))(weight.array, bias.array)
    for found in (ops.grad(loss)([weight, bias]), ops.grad(loss, (0, 1))(weight, bias)):
        for a, b in zip(found, expected):
            np.testing.assert_allclose(a, b)
    assert weight.grad is None


def test_one_weight_given_twice_is_two_arguments():
    weight = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    first, second = ops.grad(lambda a, b: (a * a * b).sum(), (0, 1))(weight, weight)
    np.testing.assert_array_equal(first, [8, 18])
    np.testing.assert_array_equal(second, [4, 9])


def test_a_list_of_numbers_is_one_array():
    np.testing.assert_array_equal(ops.grad(lambda x: (x * x).sum())([1.0, 2.0]), [2, 4])


def test_a_tape_that_was_let_go_gives_no_gradients_again_and_says_so():
    x = Tensor(np.ones(3), requires_grad=True)
    loss = ops.sum(ops.exp(x) * x)
    (found,) = pull_back([loss], [None], [x], once=True)
    np.testing.assert_allclose(found.numpy(), 2 * np.e)
    with pytest.raises(RuntimeError, match="let go"):
        loss.backward()
