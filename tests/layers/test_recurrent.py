"""SimpleRNN, LSTM and GRU as layers: masks, states, directions and what they are made of."""

import numpy as np
import pytest

from dlgpu import activations, ops
from dlgpu.backend.reference import recurrent as kernels
from dlgpu.layers import GRU, LSTM, Dense, Masking, SimpleRNN
from dlgpu.models import Model, Sequential
from dlgpu.models.functional import Input
from dlgpu.optimizers import Adam
from dlgpu.saving.configurable import deserialize, serialize
from dlgpu.tensor import Tensor

LAYERS = [SimpleRNN, LSTM, GRU]
each_layer = pytest.mark.parametrize("layer_class", LAYERS)


def sequences(rng, batch=3, time=5, features=2):
    return rng.normal(size=(batch, time, features)).astype(np.float32)


def randomized(layer, x, rng):
    """With weights all of one size, so that the biases matter."""
    layer(x)
    layer.set_weights([rng.normal(size=w.shape) * 0.5 for w in layer.get_weights()])
    return layer


def like(layer, x, **changed):
    """A layer of the same weights with other arguments."""
    made = type(layer)(**(layer._arguments | {"name": None} | changed))
    made(x)
    if made.stateful:
        made.reset_state()
    made.set_weights(layer.get_weights())
    return made


@each_layer
def test_outputs_have_the_shapes_that_are_announced(layer_class, rng):
    x = sequences(rng)
    for sequence in (False, True):
        for state in (False, True):
            layer = layer_class(4, return_sequences=sequence, return_state=state)
            outputs, shapes = layer(x), layer.compute_output_shape((None, 5, 2))
            if not state:
                outputs, shapes = [outputs], [shapes]
            assert [o.shape[1:] for o in outputs] == [s[1:] for s in shapes]
            assert outputs[0].shape == ((3, 5, 4) if sequence else (3, 4))
            assert len(outputs) == 1 + state * (2 if layer_class is LSTM else 1)


@each_layer
def test_the_last_output_is_the_last_of_the_sequence_and_the_first_state(layer_class, rng):
    x = sequences(rng)
    layer = layer_class(4, return_sequences=True, return_state=True)
    outputs, hidden, *_ = layer(x)
    last = like(layer, x, return_sequences=False, return_state=False)(x)
    np.testing.assert_array_equal(outputs.numpy()[:, -1], hidden.numpy())
    np.testing.assert_array_equal(last.numpy(), hidden.numpy())


def test_weights_begin_as_keras_says(rng):
    x = sequences(rng)
    lstm, gru, simple = LSTM(4), GRU(3), SimpleRNN(6)
    for layer in (lstm, gru, simple):
        layer(x)
        recurrent_kernel = layer.get_weights()[1].astype(np.float64)
        assert [w.name for w in layer.weights] == ["kernel", "recurrent_kernel", "bias"]
        np.testing.assert_allclose(recurrent_kernel @ recurrent_kernel.T, np.eye(layer.units), atol=1e-5)
    np.testing.assert_array_equal(lstm.bias.numpy(), [0] * 4 + [1] * 4 + [0] * 8)
    assert gru.bias.shape == (2, 9)
    plain = LSTM(4, unit_forget_bias=False, use_bias=False)
    plain(x)
    assert len(plain.weights) == 2
    before = GRU(3, reset_after=False, bias_initializer="ones")
    before(x)
    np.testing.assert_array_equal(before.bias.numpy(), np.ones(9))


@each_layer
def test_a_masked_step_changes_nothing(layer_class, rng):
    x = sequences(rng)
    mask = np.ones((3, 5), bool)
    mask[:, [0, 3]] = False
    layer = randomized(layer_class(4, return_sequences=True), x, rng)
    outputs = layer(x, mask=mask).numpy()
    np.testing.assert_allclose(outputs[:, mask[0]], layer(x[:, mask[0]]).numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs[:, 0], 0)
    np.testing.assert_array_equal(outputs[:, 3], outputs[:, 2])


@each_layer
def test_padding_on_either_side_does_not_count(layer_class, rng):
    x = sequences(rng, batch=1)
    padded = np.zeros((2, 8, 2), np.float32)
    padded[0, :5] = padded[1, 3:] = x[0]
    model = Sequential([Masking(), layer_class(4)])
    outputs = model(padded).numpy()
    np.testing.assert_allclose(outputs, np.repeat(model(x).numpy(), 2, axis=0), rtol=0, atol=1e-6)


@each_layer
def test_outputs_of_masked_steps_are_zeros_if_asked_for(layer_class, rng):
    x = sequences(rng)
    mask = np.array([[1, 1, 0, 1, 0]] * 3, bool)
    layer = layer_class(4, return_sequences=True)
    expected = layer(x, mask=mask).numpy() * mask[..., None]
    np.testing.assert_array_equal(like(layer, x, zero_output_for_mask=True)(x, mask=mask).numpy(), expected)
    last = like(layer, x, zero_output_for_mask=True, return_sequences=False)
    np.testing.assert_array_equal(last(x, mask=mask).numpy(), expected[:, -1])


@each_layer
def test_the_output_before_the_first_step_that_counts_is_zero_but_the_state_stays(layer_class, rng):
    x = sequences(rng)
    mask = np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    layer = layer_class(4, return_sequences=True, return_state=True)
    states = [rng.normal(size=(3, 4)).astype(np.float32) for _ in range(layer.state_count)]
    outputs, *after = layer(x, initial_state=states, mask=mask)
    np.testing.assert_array_equal(outputs.numpy()[0, :2], 0)
    np.testing.assert_array_equal(outputs.numpy()[1], 0)
    assert outputs.numpy()[0, 2:].all()
    for state, given in zip(after, states):
        np.testing.assert_array_equal(state.numpy()[1], given[1])


@each_layer
def test_sequences_carry_the_mask_on_and_last_outputs_do_not(layer_class, rng):
    x, mask = sequences(rng), np.array([[1, 1, 1, 0, 0]] * 3, bool)
    both = layer_class(4, return_sequences=True, return_state=True)(x, mask=mask)
    np.testing.assert_array_equal(both[0].mask.numpy(), mask)
    assert all(state.mask is None for state in both[1:])
    assert layer_class(4)(x, mask=mask).mask is None
    backwards = layer_class(4, return_sequences=True, go_backwards=True)(x, mask=mask)
    np.testing.assert_array_equal(backwards.mask.numpy(), mask[:, ::-1])


@each_layer
def test_going_backwards_is_going_through_the_flipped_sequence(layer_class, rng):
    x, mask = sequences(rng), np.array([[1, 1, 0, 1, 0]] * 3, bool)
    layer = layer_class(4, return_sequences=True)
    expected = layer(x[:, ::-1], mask=mask[:, ::-1]).numpy()
    np.testing.assert_array_equal(like(layer, x, go_backwards=True)(x, mask=mask).numpy(), expected)


@each_layer
def test_a_sequence_in_pieces_is_the_whole_when_states_are_passed_on(layer_class, rng):
    x = sequences(rng, time=7)
    layer = layer_class(4, return_sequences=True, return_state=True)
    whole, *final = layer(x)
    first, *states = layer(x[:, :3])
    second, *after = layer(x[:, 3:], initial_state=states)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole.numpy(), rtol=0, atol=1e-6)
    for a, b in zip(after, final):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-6)


@each_layer
def test_stateful_batches_make_one_long_sequence(layer_class, rng):
    x = sequences(rng, time=7)
    plain = layer_class(4)
    whole = plain(x).numpy()
    layer = like(plain, x, stateful=True)
    for _ in range(2):
        layer(x[:, :3])
        np.testing.assert_allclose(layer(x[:, 3:]).numpy(), whole, rtol=0, atol=1e-6)
        layer.reset_state()
    assert len(layer.weights) == 3  # the states are not among them


@each_layer
def test_a_stateful_layer_refuses_another_batch_size_until_it_is_reset(layer_class, rng):
    layer = layer_class(4, stateful=True, name="memory")
    layer(sequences(rng, batch=3))
    with pytest.raises(ValueError, match=r"'memory'.* batch of 3; got a batch of 2.*reset_state\(\)"):
        layer(sequences(rng, batch=2))
    layer.reset_state()
    assert layer(sequences(rng, batch=2)).shape == (2, 4)


def test_gradients_do_not_see_states_that_were_overwritten(rng):
    x = sequences(rng)
    for activation in ("tanh", "softsign"):  # by kernel and by loop
        layer = LSTM(4, activation=activation, stateful=True)
        layer(x)
        expected = None
        for disturbed in (False, True):
            layer.reset_state()
            layer(x)
            loss = layer(x).sum()
            if disturbed:
                layer(x)
            layer.recurrent_kernel.grad = None
            loss.backward()
            expected = layer.recurrent_kernel.grad.numpy() if expected is None else expected
            np.testing.assert_array_equal(layer.recurrent_kernel.grad.numpy(), expected)


@pytest.mark.parametrize("layer_class", [*LAYERS, lambda *a, **k: GRU(*a, reset_after=False, **k)])
def test_the_default_activations_run_the_kernels_and_others_the_same_equations(layer_class, rng, monkeypatch):
    x = sequences(rng)
    called = []
    for name in ("simple_rnn", "lstm", "gru"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, kernel=kernel: called.append(kernel) or kernel(*a))
    layer = layer_class(4, return_sequences=True)
    fast = layer(x)
    assert len(called) == 1
    layer.activation = lambda z: ops.tanh(z)
    np.testing.assert_allclose(layer(x).numpy(), fast.numpy(), rtol=0, atol=1e-6)
    assert len(called) == 1


def test_activations_go_by_name(rng):
    layer = LSTM(4, activation="relu", recurrent_activation="hard_sigmoid")
    assert (layer.activation, layer.recurrent_activation) == (activations.relu, activations.hard_sigmoid)
    assert (layer(sequences(rng)).numpy() >= 0).all()


@each_layer
def test_dropout_drops_the_same_features_at_every_step_and_only_in_training(layer_class, rng):
    x = np.ones((64, 6, 3), np.float32)
    layer = layer_class(4, dropout=0.5, return_sequences=True, seed=3)
    calm = layer(x).numpy()
    np.testing.assert_array_equal(layer(x).numpy(), calm)
    seen = []
    layer.sequence = lambda x, *rest: seen.append(x.numpy()) or type(layer).sequence(layer, x, *rest)
    layer(x, training=True)
    (dropped,) = seen
    assert set(np.unique(dropped)) == {0, 2}
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 6, axis=1))
    layer(x, training=True)
    assert (seen[1] != dropped).any()


@each_layer
def test_recurrent_dropout_reaches_the_state_of_each_gate(layer_class, rng):
    x = sequences(rng, time=3)
    layer = randomized(layer_class(4, recurrent_dropout=0.5, return_sequences=True), x, rng)
    calm, noisy = layer(x).numpy(), layer(x, training=True).numpy()
    np.testing.assert_allclose(noisy[:, 0], calm[:, 0], rtol=0, atol=1e-6)  # the state is zero there
    assert (noisy[:, 1] != calm[:, 1]).all()
    # with all of it dropped, each step is the first one: the state reaches the gates no more
    layer.recurrent_dropout = 1
    if layer_class is SimpleRNN:
        firsts = np.stack([layer(x[:, t : t + 1]).numpy()[:, 0] for t in range(3)], 1)
        np.testing.assert_allclose(layer(x, training=True).numpy(), firsts, rtol=0, atol=1e-6)


def test_an_encoder_hands_its_states_to_a_decoder(rng):
    source, target = Input((None, 2)), Input((4, 3))
    _, hidden, cell = LSTM(5, return_state=True)(source)
    outputs = LSTM(5, return_sequences=True)(target, initial_state=[hidden, cell])
    model = Model([source, target], outputs)
    assert outputs.shape == (None, 4, 5)
    x, y = sequences(rng), sequences(rng, time=4, features=3)
    assert not np.allclose(model([x, y]).numpy(), model([x * 2, y]).numpy())


@each_layer
def test_a_description_makes_the_same_layer(layer_class):
    layer = layer_class(4, "relu", dropout=0.1, return_sequences=True, go_backwards=True, kernel_regularizer="l2")
    again = deserialize(serialize(layer))
    assert again.get_config() == layer.get_config()
    assert (again.activation, again.dropout, again.go_backwards) == (activations.relu, 0.1, True)


@each_layer
def test_it_learns_to_sum_a_sequence(layer_class, rng):
    x = rng.normal(size=(64, 6, 2)).astype(np.float32)
    model = Sequential([layer_class(8), Dense(1)])
    model.compile(Adam(0.02), "mse")
    losses = model.fit(x, x.sum((1, 2)), epochs=20, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]


def test_bad_arguments_and_inputs_are_named(rng):
    with pytest.raises(ValueError, match="units must be a positive integer, got 0"):
        LSTM(0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\], got 1.5"):
        GRU(3, dropout=1.5)
    with pytest.raises(ValueError, match="Unknown activation 'tahn'"):
        SimpleRNN(3, "tahn")
    layer = LSTM(4, name="memory")
    with pytest.raises(ValueError, match=r"'memory': expected inputs of shape \(batch, time, features\)"):
        layer(np.zeros((3, 2), np.float32))
    layer(sequences(rng))
    with pytest.raises(ValueError, match=r"'memory': expected inputs of shape \(batch, time, 2\), got \(3, 5, 3\)"):
        layer(sequences(rng, features=3))
    with pytest.raises(ValueError, match=r"expected 2 initial states of shape \(3, 4\), got \(3, 4\)$"):
        layer(sequences(rng), initial_state=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"expected a mask of shape \(3, 5\), got \(3, 4\)"):
        layer(sequences(rng), mask=np.ones((3, 4), bool))


def test_a_second_derivative_goes_through(rng):
    x = Tensor(sequences(rng).astype(np.float64))
    layer = LSTM(3, dtype="float64")
    layer(x)
    slope = ops.grad(lambda x: layer(x).sum())
    curvature = ops.grad(lambda x: (slope(x) * slope(x)).sum())(x)
    assert curvature.dtype == np.float64
    assert curvature.numpy().any()
