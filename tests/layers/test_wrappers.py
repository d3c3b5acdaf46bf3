"""Bidirectional and TimeDistributed."""

import numpy as np
import pytest

from dlgpu.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Dense,
    Embedding,
    GlobalAveragePooling1D,
    Masking,
    SimpleRNN,
    TimeDistributed,
)
from dlgpu.models import Sequential
from dlgpu.saving.configurable import deserialize, serialize

MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)


def sequences(rng, batch=3, time=5, features=2):
    return rng.normal(size=(batch, time, features)).astype(np.float32)


# -- Bidirectional


@pytest.mark.parametrize("layer_class", [SimpleRNN, LSTM, GRU])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_the_second_half_is_the_first_half_of_the_flipped_sequence(layer_class, return_sequences, rng):
    x = sequences(rng)
    layer = Bidirectional(layer_class(4, return_sequences=return_sequences))
    layer(x)
    layer.backward_layer.set_weights(layer.forward_layer.get_weights())
    outputs, flipped = layer(x, mask=MASK).numpy(), layer(x[:, ::-1], mask=MASK[:, ::-1]).numpy()
    flipped = flipped[:, ::-1] if return_sequences else flipped
    np.testing.assert_allclose(outputs[..., 4:], flipped[..., :4], rtol=0, atol=1e-6)
    assert (outputs[..., :4] != outputs[..., 4:]).any()


@pytest.mark.parametrize(
    ("merge_mode", "merge"),
    [
        ("concat", lambda a, b: np.concatenate([a, b], -1)),
        ("sum", np.add),
        ("mul", np.multiply),
        ("ave", lambda a, b: (a + b) / 2),
    ],
)
def test_merge_modes(merge_mode, merge, rng):
    x = sequences(rng)
    apart = Bidirectional(GRU(4, return_sequences=True), merge_mode=None)
    one, other = apart(x)
    merged = Bidirectional(GRU(4, return_sequences=True), merge_mode=merge_mode)
    merged(x)
    merged.set_weights(apart.get_weights())
    outputs = merged(x)
    np.testing.assert_allclose(outputs.numpy(), merge(one.numpy(), other.numpy()), rtol=1e-6)
    assert outputs.shape[1:] == merged.compute_output_shape((None, 5, 2))[1:]


def test_states_follow_the_output_and_can_be_given(rng):
    x = sequences(rng, time=6)
    layer = Bidirectional(LSTM(4, return_sequences=True, return_state=True))
    whole, *states = layer(x)
    assert [s.shape for s in states] == [(3, 4)] * 4
    assert [s[1:] for s in layer.compute_output_shape((None, 6, 2))] == [(6, 8), (4,), (4,), (4,), (4,)]
    np.testing.assert_array_equal(whole.numpy()[:, -1, :4], states[0].numpy())
    np.testing.assert_array_equal(whole.numpy()[:, 0, 4:], states[2].numpy())
    _, *later = layer(x[:, 3:])
    _, *earlier = layer(x[:, :3])
    again = layer(x[:, 3:], initial_state=[*earlier[:2], *later[2:]])[0].numpy()
    np.testing.assert_allclose(again[..., :4], whole.numpy()[:, 3:, :4], rtol=0, atol=1e-6)


def test_masked_steps_of_both_directions_are_zero_and_the_mask_goes_on(rng):
    layer = Bidirectional(LSTM(4, return_sequences=True))
    outputs = layer(sequences(rng), mask=MASK)
    np.testing.assert_array_equal((outputs.numpy() != 0).all(-1), MASK)
    np.testing.assert_array_equal(outputs.mask.numpy(), MASK)
    assert Bidirectional(LSTM(4))(sequences(rng), mask=MASK).mask is None


def test_weights_are_the_forward_layers_then_the_backward_layers(rng):
    layer = Bidirectional(GRU(4, name="gru"), input_shape=(5, 2))
    assert Sequential([layer]).built
    names = [w.path for w in layer.weights]
    weights = ["kernel", "recurrent_kernel", "bias"]
    assert names == [f"{way}_gru/{name}" for way in ("forward", "backward") for name in weights]
    layer.trainable = False
    assert not layer.trainable_weights
    assert Bidirectional(GRU(4), trainable=False).forward_layer.trainable is False


def test_a_backward_layer_of_ones_own(rng):
    x = sequences(rng)
    layer = Bidirectional(LSTM(4), backward_layer=GRU(3, go_backwards=True, name="mine"))
    assert layer(x).shape == (3, 7)
    assert layer.backward_layer.name == "mine"
    with pytest.raises(ValueError, match="must differ in go_backwards"):
        Bidirectional(LSTM(4), backward_layer=GRU(3))
    with pytest.raises(ValueError, match="must have the same return_sequences, got False and True"):
        Bidirectional(LSTM(4), backward_layer=GRU(3, go_backwards=True, return_sequences=True))


def test_both_directions_keep_their_states(rng):
    x = sequences(rng)
    layer = Bidirectional(SimpleRNN(4, stateful=True))
    first = layer(x).numpy()
    assert (layer(x).numpy() != first).all()
    layer.reset_state()
    np.testing.assert_array_equal(layer(x).numpy(), first)


def test_what_is_no_recurrent_layer_is_refused():
    with pytest.raises(TypeError, match="expected a recurrent layer, got <Dense"):
        Bidirectional(Dense(3))
    with pytest.raises(ValueError, match="merge_mode must be one of concat, sum, ave, mul or None, got 'add'"):
        Bidirectional(LSTM(3), merge_mode="add")


# -- TimeDistributed


def test_every_step_goes_through_the_layer(rng):
    x = rng.normal(size=(3, 4, 6, 2)).astype(np.float32)
    for inner in (Dense(5), Conv1D(3, 2), LSTM(4), Sequential([Conv1D(3, 2), GlobalAveragePooling1D()])):
        layer = TimeDistributed(inner)
        outputs = layer(x)
        assert outputs.shape == (3, *layer.compute_output_shape((None, 4, 6, 2))[1:])
        for t in range(4):
            np.testing.assert_allclose(outputs.numpy()[:, t], inner(x[:, t]).numpy(), rtol=0, atol=1e-6)


def test_integers_reach_a_layer_that_wants_them():
    words = np.array([[[1, 2, 0], [3, 0, 0]]])
    assert TimeDistributed(Embedding(4, 5))(words).shape == (1, 2, 3, 5)


def test_statistics_are_taken_step_by_step(rng):
    x = rng.normal(size=(8, 3, 2)).astype(np.float32)
    layer = TimeDistributed(BatchNormalization())
    outputs = layer(x, training=True).numpy()
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-6)
    inner = BatchNormalization()
    for t in range(3):
        inner(x[:, t], training=True)
    for ours, theirs in zip(layer.get_weights(), inner.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


def test_a_mask_of_steps_is_handed_on(rng):
    outputs = TimeDistributed(Dense(3))(sequences(rng), mask=MASK)
    np.testing.assert_array_equal(outputs.mask.numpy(), MASK)


def test_a_mask_within_steps_reaches_the_layer(rng):
    x = rng.normal(size=(2, 2, 5, 3)).astype(np.float32)
    x[0, 0, 3:] = x[1, 1] = 0
    inner = LSTM(4)
    model = Sequential([Masking(), TimeDistributed(inner)])
    outputs = model(x)
    np.testing.assert_allclose(outputs.numpy()[0, 0], inner(x[0, :1, :3]).numpy()[0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs.mask.numpy(), [[True, True], [True, False]])


def test_gradients_arrive_whole(rng):
    x = rng.normal(size=(16, 4, 3)).astype(np.float32)
    model = Sequential([TimeDistributed(Dense(4, "tanh")), Bidirectional(LSTM(4)), Dense(1)])
    model.compile("adam", "mse")
    losses = model.fit(x, x.sum((1, 2)), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_description_makes_the_same_wrapper(rng):
    x = sequences(rng)
    for layer in (TimeDistributed(Dense(3, "relu")), Bidirectional(GRU(4, dropout=0.1), "sum")):
        layer(x)
        again = deserialize(serialize(layer))
        assert again.get_config() == layer.get_config()
        again(x)
        assert [w.path for w in again.weights] == [w.path for w in layer.weights]


def test_inputs_without_time_are_refused(rng):
    with pytest.raises(ValueError, match=r"expected inputs of shape \(batch, time, ...\).*got \(None, 2\)"):
        TimeDistributed(Dense(3))(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"expected a mask of shape \(3, 5\), got \(3, 4\)"):
        TimeDistributed(Dense(3))(sequences(rng), mask=np.ones((3, 4), bool))
