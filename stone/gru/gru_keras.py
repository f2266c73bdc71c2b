"""GRU on IMDB in Keras, for any backend."""

# %% Imports
import keras
import numpy as np
from keras import layers
from keras.initializers import RandomUniform

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 3
LEARNING_RATE = 0.001
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
VOCABULARY = 30_000
LENGTH = 150
EMBEDDING = 125
HIDDEN = 100


# %% Data
def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
def build_model():
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),  # (N, 150)
            layers.Embedding(  # (N, 150, 125)
                VOCABULARY, EMBEDDING, embeddings_initializer=RandomUniform(-0.05, 0.05), name="embedding"
            ),
            layers.GRU(  # (N, 100), the last output; gates in the order update, reset, new
                HIDDEN,
                kernel_initializer=RandomUniform(-0.1, 0.1),
                recurrent_initializer=RandomUniform(-0.1, 0.1),
                bias_initializer=RandomUniform(-0.1, 0.1),
                name="gru",
            ),
            layers.Dense(2, name="fc"),  # (N, 2)
        ]
    )


# %% Loss
loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# %% Optimizer
def make_optimizer(model):
    optimizer = keras.optimizers.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
    model.compile(optimizer, loss_fn, metrics=["accuracy"])
    return optimizer


# %% Train step
def train_step(model, tokens, labels):
    return model.train_on_batch(tokens, labels)[0]  # of [loss, accuracy]


# %% Evaluation
def evaluate(model, tokens, labels):
    return model.evaluate(tokens, labels, BATCH_SIZE, verbose=0)[1]  # of [loss, accuracy]


# %% Run
def main():
    keras.utils.set_random_seed(SEED)
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}")


if __name__ == "__main__":
    main()
