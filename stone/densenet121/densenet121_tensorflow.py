"""DenseNet-121 on chest X-rays in TensorFlow."""

# %% Imports
import tensorflow as tf
from sklearn.metrics import roc_auc_score
from tensorflow.keras import layers

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 16
EPOCHS = 5
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8
RESIZE, SIZE = 264, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = len(data.chestxray_classes())
WIDTH, GROWTH, BLOCKS = 64, 32, (6, 12, 24, 16)
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1
REPLICAS = len(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))
STRATEGY = tf.distribute.MirroredStrategy() if REPLICAS > 1 else tf.distribute.get_strategy()


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


def load(path, seeds, training):
    x = tf.cast(tf.io.decode_png(tf.io.read_file(path), channels=3), tf.float32) / 255  # (H, W, 3)
    x = tf.image.resize(x, (RESIZE, RESIZE), "bilinear", antialias=True)  # (264, 264, 3)
    if training:
        x = tf.image.stateless_random_crop(x, (SIZE, SIZE, 3), seeds[:2])
        x = tf.image.stateless_random_flip_left_right(x, seeds[2:])
    else:
        x = tf.image.crop_to_bounding_box(x, (RESIZE - SIZE) // 2, (RESIZE - SIZE) // 2, SIZE, SIZE)
    return (x - MEAN) / DEVIATION  # (224, 224, 3)


def batches(paths, labels, training):
    dataset = tf.data.Dataset.from_tensor_slices(([str(path) for path in paths], labels))
    if training:
        dataset = dataset.shuffle(len(labels))  # a buffer of all examples: a smaller one shuffles only nearby
    dataset = tf.data.Dataset.zip(dataset, tf.data.Dataset.random().batch(4))  # of each image its own draws
    dataset = dataset.map(lambda pair, seeds: (load(pair[0], seeds, training), pair[1]), tf.data.AUTOTUNE)
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


# %% Model
def norm():
    return layers.BatchNormalization(momentum=1 - NORM_MOMENTUM, epsilon=NORM_EPSILON)  # Keras's weighs the old


def conv(filters, side):
    return layers.Conv2D(filters, side, padding="same", use_bias=False, kernel_initializer="he_uniform")


class DenseLayer(layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm1, self.conv1 = norm(), conv(4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(), conv(GROWTH, 3)

    def call(self, x, training=False):
        y = self.conv1(tf.nn.relu(self.norm1(x, training=training)))
        y = self.conv2(tf.nn.relu(self.norm2(y, training=training)))
        return tf.concat([x, y], axis=-1)


class Transition(layers.Layer):
    def __init__(self, filters):
        super().__init__()
        self.norm, self.conv = norm(), conv(filters, 1)

    def call(self, x, training=False):
        return tf.nn.avg_pool2d(self.conv(tf.nn.relu(self.norm(x, training=training))), 2, 2, "VALID")


class DenseNet(tf.keras.Model):
    def __init__(self):
        super().__init__()
        first = layers.Conv2D(WIDTH, 7, 2, use_bias=False, kernel_initializer="he_uniform")
        self.conv0 = tf.keras.Sequential([layers.ZeroPadding2D(3), first])  # "same" pads one more after than before
        self.norm0 = norm()
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            setattr(self, f"block{number}", [DenseLayer() for _ in range(count)])
            channels += GROWTH * count
            if number < len(BLOCKS):
                channels //= 2
                setattr(self, f"transition{number}", Transition(channels))
        self.norm5 = norm()
        self.classifier = layers.Dense(CLASSES)

    def call(self, x, training=False):  # (N, 224, 224, 3)
        x = tf.nn.relu(self.norm0(self.conv0(x), training=training))  # (N, 112, 112, 64)
        x = tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])  # (N, 56, 56, 64)
        early = *self.block1, self.transition1, *self.block2, self.transition2  # to (N, 28, 28, 128), (N, 14, 14, 256)
        late = *self.block3, self.transition3, *self.block4  # to (N, 7, 7, 512), (N, 7, 7, 1024)
        for layer in early + late:
            x = layer(x, training=training)
        x = tf.nn.relu(self.norm5(x, training=training))
        return self.classifier(tf.reduce_mean(x, (1, 2)))  # (N, 14)


def build_model():
    with STRATEGY.scope():
        model = DenseNet()
        model(tf.keras.Input((SIZE, SIZE, 3)))  # creates the variables, on every device, and computes nothing yet
    return model


# %% Loss
def loss_fn(model, images, labels):
    logits = model(images, training=True)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits))


# %% Optimizer
def make_optimizer(model):
    with STRATEGY.scope():
        optimizer = tf.keras.optimizers.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
        optimizer.build(model.trainable_variables)  # a traced function may not create variables
    return optimizer


# %% Train step
def spread(batch):
    parts = [batch] * REPLICAS  # an uneven last batch is every device's as a whole
    if len(batch) % REPLICAS == 0:
        parts = tf.split(batch, REPLICAS)
    return STRATEGY.experimental_distribute_values_from_function(
        lambda replica: parts[replica.replica_id_in_sync_group]
    )


def replica_step(model, optimizer, images, labels):
    with tf.GradientTape() as tape:
        loss = loss_fn(model, images, labels) / REPLICAS  # for the optimizer adds up the replicas' gradients
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


@tf.function
def train_step(model, optimizer, images, labels):
    losses = STRATEGY.run(replica_step, (model, optimizer, spread(images), spread(labels)))
    return STRATEGY.reduce("sum", losses, axis=None)


# %% Evaluation
@tf.function
def predict(model, images):
    return model(images, training=False)  # (N, 14)


def evaluate(model, paths, labels):
    logits = tf.concat([predict(model, images) for images, _ in batches(paths, labels, training=False)], axis=0)
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    tf.keras.utils.set_random_seed(SEED)
    (train_paths, train_labels), (test_paths, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_paths, train_labels, training=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test AUC {evaluate(model, test_paths, test_labels):.3f}")


if __name__ == "__main__":
    main()
