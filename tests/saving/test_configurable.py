"""Objects are found by name, and made again from what JSON says of them."""

import json

import numpy as np
import pytest

from dlgpu.layers import LSTM, Conv2D, Dense, Flatten, Layer, MaxPooling2D
from dlgpu.losses import MeanSquaredError
from dlgpu.metrics import Recall
from dlgpu.models import Sequential
from dlgpu.optimizers import SGD
from dlgpu.regularizers import L2
from dlgpu.saving.configurable import (
    Configurable,
    deserialize,
    functions,
    known_objects,
    one_description,
    serialize,
    snake_case,
)


class Fruit(Configurable):
    """A kind."""


class GreenApple(Fruit):
    aliases = ("ga",)

    def __init__(self, weight=1.0, *, inner=None, **kwargs):
        self.weight, self.inner, self.rest = weight, inner, kwargs


class Basket(Fruit):
    def __init__(self, fruits):
        self.fruits = fruits


def my_function():
    pass


def through_json(value):
    return deserialize(json.loads(json.dumps(serialize(value))))


@pytest.mark.parametrize("name", ["GreenApple", "green_apple", "greenapple", "GA"])
def test_a_class_is_found_by_any_of_its_names(name):
    assert type(Fruit.get(name)) is GreenApple


def test_get_takes_instances_classes_configurations_and_none():
    apple = GreenApple(2.0)
    assert Fruit.get(apple) is apple
    assert type(Fruit.get(GreenApple)) is GreenApple
    assert Fruit.get(serialize(apple)).weight == 2.0
    assert Fruit.get(None) is None
    with pytest.raises(TypeError, match="name of a fruit or a Fruit, got 3"):
        Fruit.get(3)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown fruit 'green_aple'\. Did you mean 'green_apple'\?"):
        Fruit.get("green_aple")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Dense(3, activaton="relu"),
            r"Dense: .*argument 'activaton'. Did you mean 'activation'\? Known: .*dtype",
        ),
        (lambda: SGD(lr=0.1), "SGD: .*argument 'lr'. Known: clipnorm, .*learning_rate, .*momentum"),
        (lambda: MeanSquaredError(reduce="sum"), "MeanSquaredError: .*argument 'reduce'. Did you mean 'reduction'"),
        (lambda: Recall(treshold=0.1), "Recall: .*argument 'treshold'. Did you mean 'thresholds'"),
        (lambda: L2(l3=0.1), "L2: .*argument 'l3'. Did you mean 'l2'"),
        (lambda: Basket(fruit=[]), "Basket: .*argument 'fruit'. Did you mean 'fruits'"),
        (lambda: Sequential(layer=[]), "Sequential: .*argument 'layer'. Did you mean 'layers'"),
        (lambda: LSTM(3, unit=4), "LSTM: .*argument 'unit'.*, trainable, unit_forget_bias, units, unroll"),
        (lambda: Conv2D(3), "Conv2D: missing a required argument: 'kernel_size'"),
        (lambda: SGD(0.1, 0.9, True, 3), "SGD: too many positional arguments"),
    ],
)
def test_an_argument_that_is_not_known_names_the_class_and_the_nearest(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_arguments_may_be_taken_from_the_open_ones():
    class Picky(Layer):
        def __init__(self, **kwargs):
            self.factor = kwargs.pop("factor")
            super().__init__(**kwargs)

    assert Picky(factor=2, name="picky").factor == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: Conv2D(3, 2, **given),
        lambda **given: MaxPooling2D(**given),
        lambda **given: Flatten(**given),
    ],
)
def test_what_is_left_out_of_keras_is_taken_where_it_changes_nothing(make):
    layer = make(data_format="channels_last", autocast=True, kernel_constraint=None)
    assert through_json(layer).name == layer.name
    with pytest.raises(ValueError, match=r"data_format must be 'channels_last' .*, got 'channels_first'"):
        make(data_format="channels_first")
    with pytest.raises(ValueError, match="kernel_constraint must be None, got 'non_neg'"):
        make(kernel_constraint="non_neg")
    for weights in (np.ones((2, 3)), [np.ones((2, 3)), np.ones(3)]):
        with pytest.raises(ValueError, match=r"\w+ '\w+': weights must be None, got .*array\("):
            make(weights=weights)


@pytest.mark.parametrize(
    ("name", "snake"),
    [("MaxPooling2D", "max_pooling2d"), ("LSTM", "lstm"), ("SimpleRNN", "simple_rnn"), ("PReLU", "p_re_lu")],
)
def test_snake_case(name, snake):
    assert snake_case(name) == snake


def test_the_constructors_arguments_come_back():
    made = through_json(GreenApple(3.0, inner=Basket([GreenApple(4.0), (1, None)]), extra=np.float32(0.5)))
    assert (made.weight, made.rest) == (3.0, {"extra": 0.5})
    assert made.inner.fruits[0].weight == 4.0
    assert made.inner.fruits[1] == [1, None]


@pytest.mark.parametrize(
    ("constructor", "arguments", "open_ones"),
    [
        (lambda self, *fruits, **options: vars(self).update(got=(fruits, options)), (1, 2), {"ripe": True}),
        (lambda self, first=0, *rest, last=0: vars(self).update(got=(first, rest, last)), (1, 2, 3), {"last": 4}),
        (lambda self, first=0, *rest, last=0: vars(self).update(got=(first, rest, last)), (), {"first": 4}),
        (lambda self, first, /, second=2, **options: vars(self).update(got=(first, second, options)), (1,), {"x": 3}),
        (lambda this, first, kwargs=None: vars(this).update(got=(first, kwargs)), (1,), {"kwargs": {"a": 1}}),
        (lambda *all, **options: vars(all[0]).update(got=(all[1:], options)), (1, 2), {"self_made": 3}),
    ],
)
def test_arguments_come_back_however_a_constructor_takes_them(constructor, arguments, open_ones):
    kind = type("Crate", (Fruit,), {"__init__": constructor})
    made = kind(*arguments, **open_ones)
    assert through_json(made).got == made.got
    assert serialize(through_json(made)) == serialize(made)


def test_arrays_and_dtypes_become_json():
    assert through_json({"a": np.arange(3), "d": np.dtype("float64"), "t": np.int32}) == {
        "a": [0, 1, 2],
        "d": "float64",
        "t": "int32",
    }


def test_a_function_is_described_by_name_and_found_among_the_known():
    described = serialize(GreenApple(my_function))
    with pytest.raises(ValueError, match="Unknown function 'my_function'"):
        deserialize(described)
    with known_objects({"my_function": my_function}):
        assert deserialize(described).weight is my_function
    assert "my_function" not in functions


def test_a_lambda_cannot_be_described():
    with pytest.raises(TypeError, match="cannot describe <function"):
        serialize(lambda x: x)


def test_a_function_with_a_name_that_is_taken_cannot_be_described():
    def relu(x):
        return x

    functions.setdefault("relu", lambda x: x)
    with pytest.raises(TypeError, match="a name of its own"):
        serialize(relu)


def test_one_description_keeps_objects_the_same():
    apple = GreenApple()
    with one_description():
        described = json.loads(json.dumps(serialize([apple, Basket([apple])])))
    with one_description():
        first, basket = deserialize(described)
    assert basket.fruits[0] is first


def test_a_users_class_may_be_defined_again_but_not_take_a_name_of_ours():
    def again():
        class Mine(Layer):
            pass

        return Mine

    again()
    assert Layer.class_named("Mine") is not again()  # the last one counts
    mine = type("Dense", (Layer,), {"__module__": "__main__"})
    assert Layer.class_named("Dense") is Dense
    with pytest.raises(TypeError, match=r"layers\.dense\.Dense'> would be loaded instead of .*another name"):
        serialize(mine())


def test_names_that_differ_in_case_only_are_found_as_they_are_written():
    again = type("GREENApple", (Fruit,), {})
    assert [Fruit.class_named(name) for name in ("GreenApple", "GREENApple")] == [GreenApple, again]
    del Fruit.registry["GREENApple"]


def test_known_objects_win_inside_and_leave_nothing_behind():
    class Other(Layer):
        pass

    described = {"kind": "Layer", "class": "Dense", "config": {}}
    with known_objects({"Dense": Other, "Renamed": Other}):
        assert type(deserialize(described)) is Other
        assert type(deserialize({**described, "class": "Renamed"})) is Other
    assert Layer.class_named("Dense") is Dense
    assert "Renamed" not in Layer.registry


def test_known_objects_may_go_by_their_own_names():
    class Nameless(Layer, abstract=True):
        pass

    with known_objects([my_function, Nameless]):
        assert deserialize({"function": "my_function"}) is my_function
        assert Layer.class_named("Nameless") is Nameless
    assert not {"Nameless", "my_function"} & {*Layer.registry, *functions}


def test_known_objects_must_be_functions_or_classes_of_a_kind():
    with pytest.raises(TypeError, match="custom_objects: expected functions and subclasses"), known_objects({"x": int}):
        pass
