"""GRU on IMDB in TensorFlow."""

# %% Imports
import tensorflow as tf
from tensorflow.keras import layers

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
    dataset = tf.data.Dataset.from_tensor_slices((tokens, labels))
    if shuffle:
        dataset = dataset.shuffle(len(labels))  # a buffer of all examples: a smaller one shuffles only nearby
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


# %% Model
class GRU(tf.keras.Model):
    def __init__(self):
        super().__init__()
        uniform = tf.keras.initializers.RandomUniform
        self.embedding = layers.Embedding(VOCABULARY, EMBEDDING, embeddings_initializer=uniform(-0.05, 0.05))
        self.gru = layers.GRU(  # gates in the order update, reset, new
            HIDDEN,
            kernel_initializer=uniform(-0.1, 0.1),
            recurrent_initializer=uniform(-0.1, 0.1),
            bias_initializer=uniform(-0.1, 0.1),
        )
        self.fc = layers.Dense(2)

    def call(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        x = self.gru(x)  # (N, 100), the last output
        return self.fc(x)  # (N, 2)


def build_model():
    model = GRU()
    model(tf.zeros((1, LENGTH), tf.int32))  # creates the variables
    return model


# %% Loss
def loss_fn(model, tokens, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(tokens)))


# %% Optimizer
def make_optimizer(model):
    optimizer = tf.keras.optimizers.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
    optimizer.build(model.trainable_variables)  # a traced function may not create variables
    return optimizer


# %% Train step
@tf.function
def train_step(model, optimizer, tokens, labels):
    with tf.GradientTape() as tape:
        loss = loss_fn(model, tokens, labels)
    gradients = tape.gradient(loss, model.trainable_variables)
    # An embedding's gradient is slices, one an occurrence of a word: add them up before Keras's Adam squares them.
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    optimizer.apply(gradients, model.trainable_variables)
    return loss


# %% Evaluation
@tf.function
def predict(model, tokens):
    return model(tokens)  # (N, 2)


def evaluate(model, tokens, labels):
    accuracy = tf.keras.metrics.SparseCategoricalAccuracy()
    for x, y in batches(tokens, labels, shuffle=False):
        accuracy.update_state(y, predict(model, x))
    return accuracy.result().numpy()


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
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}")


if __name__ == "__main__":
    main()
