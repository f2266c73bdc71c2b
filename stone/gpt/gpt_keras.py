"""GPT on the bytes of IMDB in Keras, for any backend."""

# %% Imports
import math

import keras
import numpy as np
from keras import layers, ops
from keras.initializers import RandomNormal

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 1
LEARNING_RATE = 0.001
WARMUP_STEPS, DECAY_STEPS = 100, 4000
BETA1, BETA2, EPSILON = 0.9, 0.95, 1e-8
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
VOCABULARY, CONTEXT = 256, 128
EMBEDDING, HEADS, LAYERS = 128, 4, 4
NORM_EPSILON = 1e-5


# %% Data
def load_data():
    return data.imdb_bytes(CONTEXT)  # twice bytes (N, 128) and those that follow (N, 128): for training, for testing


def batches(tokens, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
def normal():  # an initializer for each use: one that is used again draws the same again
    return RandomNormal(stddev=0.02)


def dense(units):
    return layers.Dense(units, use_bias=False, kernel_initializer=normal())


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm1 = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False)
        self.qkv = dense(3 * EMBEDDING)
        self.projection = dense(EMBEDDING)
        self.norm2 = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False)
        self.expand = dense(4 * EMBEDDING)
        self.contract = dense(EMBEDDING)

    def call(self, x):  # (N, L, 128)
        length = x.shape[1]
        heads = ops.reshape(self.qkv(self.norm1(x)), (-1, length, 3, HEADS, EMBEDDING // HEADS))  # (N, L, 3, 4, 32)
        q, k, v = ops.unstack(heads, axis=2)  # each (N, L, 4, 32)
        attended = ops.dot_product_attention(q, k, v, is_causal=True)  # (N, L, 4, 32)
        x = x + self.projection(ops.reshape(attended, (-1, length, EMBEDDING)))  # (N, L, 128)
        return x + self.contract(ops.gelu(self.expand(self.norm2(x)), approximate=True))  # (N, L, 128)


class GPT(keras.Model):
    def __init__(self):
        super().__init__()
        self.token_embedding = layers.ReversibleEmbedding(VOCABULARY, EMBEDDING, embeddings_initializer=normal())
        self.position_embedding = layers.Embedding(CONTEXT, EMBEDDING, embeddings_initializer=normal())
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False)

    def call(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(ops.arange(tokens.shape[1]))  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return self.token_embedding(self.norm(x), reverse=True)  # (N, L, 256)


def build_model():
    model = GPT()
    model(np.zeros((1, CONTEXT), "int32"))  # creates the variables
    return model


# %% Loss
loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# %% Optimizer
def make_optimizer(model):
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, DECAY_STEPS - WARMUP_STEPS, warmup_target=LEARNING_RATE, warmup_steps=WARMUP_STEPS
    )
    # clipnorm would clip each variable's gradient on its own
    optimizer = keras.optimizers.AdamW(rate, WEIGHT_DECAY, BETA1, BETA2, EPSILON, global_clipnorm=CLIP_NORM)
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    model.compile(optimizer, loss_fn)
    return optimizer


# %% Train step
def train_step(model, tokens, labels):
    return model.train_on_batch(tokens, labels)


# %% Evaluation
def evaluate(model, tokens, labels):
    return model.evaluate(tokens, labels, BATCH_SIZE, verbose=0) / math.log(2)  # bits per byte


def generate(model, prompt, length):
    text = list(prompt)
    for _ in range(length):
        window = text[-CONTEXT:]
        padded = np.pad(window, (0, CONTEXT - len(window)))  # of one shape: later bytes change no earlier output
        logits = model.predict_on_batch(padded[None])[:, len(window) - 1]  # (1, 256)
        text.append(int(keras.random.categorical(logits, 1)[0, 0]))
    return bytes(text)


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
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
