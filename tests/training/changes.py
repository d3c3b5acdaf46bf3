"""What a user may change in a model between two runs: Dense, Dropout, Dense."""


def change_weights(model):
    model.set_weights([w * 0.5 for w in model.get_weights()])


def change_rate(model):
    model.optimizer.learning_rate = 0.1


def freeze(model):
    model.layers[0].trainable = False


def change_dropout(model):
    model.layers[1].rate = 0.8
