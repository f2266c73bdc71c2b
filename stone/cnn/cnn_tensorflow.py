"""CNN on CIFAR-10 in TensorFlow."""

# %% Imports
import tensorflow as tf
from tensorflow.keras import layers

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
DROPOUT1, DROPOUT2, DROPOUT3 = 0.25, 0.25, 0.5


# %% Data
def load_data():
    return data.cifar10(channels_last=True)  # twice (N, 32, 32, 3) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        dataset = dataset.shuffle(len(labels))  # a buffer of all examples: a smaller one shuffles only nearby
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


# %% Model
class CNN(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.conv1 = layers.Conv2D(50, 3, padding="same")
        self.conv2 = layers.Conv2D(50, 3, padding="same")
        self.dropout1 = layers.Dropout(DROPOUT1)
        self.conv3 = layers.Conv2D(100, 3, padding="same")
        self.conv4 = layers.Conv2D(100, 3, padding="same")
        self.dropout2 = layers.Dropout(DROPOUT2)
        self.flatten = layers.Flatten()
        self.fc1 = layers.Dense(512)
        self.dropout3 = layers.Dropout(DROPOUT3)
        self.fc2 = layers.Dense(10)

    def call(self, x, training=False):  # (N, 32, 32, 3)
        x = tf.nn.relu(self.conv1(x))  # (N, 32, 32, 50)
        x = tf.nn.relu(tf.nn.max_pool2d(self.conv2(x), 2, 2, "VALID"))  # (N, 16, 16, 50)
        x = self.dropout1(x, training=training)
        x = tf.nn.relu(self.conv3(x))  # (N, 16, 16, 100)
        x = tf.nn.relu(tf.nn.max_pool2d(self.conv4(x), 2, 2, "VALID"))  # (N, 8, 8, 100)
        x = self.dropout2(x, training=training)
        x = tf.nn.relu(self.fc1(self.flatten(x)))  # (N, 512)
        x = self.dropout3(x, training=training)
        return self.fc2(x)  # (N, 10)


def build_model():
    model = CNN()
    model(tf.zeros((1, 32, 32, 3)))  # creates the variables
    return model


# %% Loss
def loss_fn(model, images, labels):
    logits = model(images, training=True)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


# %% Optimizer
def make_optimizer(model):
    optimizer = tf.keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)  # a traced function may not create variables
    return optimizer


# %% Train step
@tf.function
def train_step(model, optimizer, images, labels):
    with tf.GradientTape() as tape:
        loss = loss_fn(model, images, labels)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


# %% Evaluation
@tf.function
def predict(model, images):
    return model(images, training=False)  # (N, 10)


def evaluate(model, images, labels):
    accuracy = tf.keras.metrics.SparseCategoricalAccuracy()
    for x, y in batches(images, labels, shuffle=False):
        accuracy.update_state(y, predict(model, x))
    return accuracy.result().numpy()


# %% Run
def main():
    tf.keras.utils.set_random_seed(SEED)
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
