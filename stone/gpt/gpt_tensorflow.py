"""GPT on the bytes of IMDB in TensorFlow."""

# %% Imports
import math

import tensorflow as tf
from tensorflow.keras import layers
from tensorflow.keras.initializers import RandomNormal

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
    dataset = tf.data.Dataset.from_tensor_slices((tokens, labels))
    if shuffle:
        dataset = dataset.shuffle(len(labels))  # a buffer of all examples: a smaller one shuffles only nearby
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


# %% Model
def dense(units):  # each with an initializer of its own: one that is used again draws the same again
    return layers.Dense(units, use_bias=False, kernel_initializer=RandomNormal(stddev=0.02))


def embedding(rows):
    return layers.Embedding(rows, EMBEDDING, embeddings_initializer=RandomNormal(stddev=0.02))


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
        length = tf.shape(x)[1]
        heads = tf.reshape(self.qkv(self.norm1(x)), (-1, length, 3, HEADS, EMBEDDING // HEADS))  # (N, L, 3, 4, 32)
        q, k, v = tf.unstack(tf.transpose(heads, (2, 0, 3, 1, 4)))  # each (N, 4, L, 32)
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(EMBEDDING // HEADS)  # (N, 4, L, L)
        earlier = tf.linalg.band_part(tf.ones((length, length), tf.bool), -1, 0)
        weights = tf.nn.softmax(tf.where(earlier, scores, scores.dtype.min))
        attended = tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3))  # (N, L, 4, 32)
        x = x + self.projection(tf.reshape(attended, tf.shape(x)))  # (N, L, 128)
        return x + self.contract(tf.nn.gelu(self.expand(self.norm2(x)), approximate=True))  # (N, L, 128)


class GPT(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.token_embedding = embedding(VOCABULARY)
        self.position_embedding = embedding(CONTEXT)
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False)

    def call(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(tf.range(tf.shape(tokens)[1]))  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return tf.matmul(self.norm(x), self.token_embedding.embeddings, transpose_b=True)  # (N, L, 256)


def build_model():
    model = GPT()
    model(tf.zeros((1, CONTEXT), tf.int32))  # creates the variables
    return model


# %% Loss
def loss_fn(model, tokens, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(tokens)))


# %% Optimizer
def make_optimizer(model):
    rate = tf.keras.optimizers.schedules.CosineDecay(
        0.0, DECAY_STEPS - WARMUP_STEPS, warmup_target=LEARNING_RATE, warmup_steps=WARMUP_STEPS
    )
    # clipnorm would clip each variable's gradient on its own
    optimizer = tf.keras.optimizers.AdamW(rate, WEIGHT_DECAY, BETA1, BETA2, EPSILON, global_clipnorm=CLIP_NORM)
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    optimizer.build(model.trainable_variables)  # a traced function may not create variables
    return optimizer


# %% Train step
@tf.function
def train_step(model, optimizer, tokens, labels):
    with tf.GradientTape() as tape:
        loss = loss_fn(model, tokens, labels)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


# %% Evaluation
evaluation_loss = tf.function(loss_fn)


def evaluate(model, tokens, labels):
    mean = tf.keras.metrics.Mean()
    for x, y in batches(tokens, labels, shuffle=False):
        mean.update_state(evaluation_loss(model, x, y), sample_weight=len(x))
    return mean.result().numpy() / math.log(2)  # bits per byte


def generate(model, prompt, length):
    tokens = tf.constant([list(prompt)])  # (1, L)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1]  # (1, 256)
        tokens = tf.concat([tokens, tf.random.categorical(logits, 1, tf.int32)], axis=1)
    return bytes(tokens[0].numpy().tolist())


# %% Run
def main():
    tf.keras.utils.set_random_seed(SEED)
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
