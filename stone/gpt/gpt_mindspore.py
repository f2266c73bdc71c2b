"""GPT on the bytes of IMDB in MindSpore."""

# %% Imports
import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.common.initializer import Normal
from mindspore.dataset import NumpySlicesDataset
from mindspore.experimental import optim

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
    return data.imdb_bytes(CONTEXT)  # twice (N, 128), the bytes that follow: for training, for testing


def batches(tokens, labels, shuffle):
    # Once a seed is set, `shuffle=True` draws the same order whenever a pipeline is built.
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    dataset = NumpySlicesDataset((tokens, labels), sampler=order.tolist()).batch(BATCH_SIZE)
    return dataset.create_tuple_iterator(num_epochs=1)


# %% Model
def dense(inputs, outputs):
    return nn.Dense(inputs, outputs, weight_init=Normal(0.02), has_bias=False)


class LayerNorm(nn.Cell):  # that of `nn` always has a bias
    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ops.ones(EMBEDDING))
        self.layer_norm = ops.LayerNorm(-1, -1, NORM_EPSILON)

    def construct(self, x):
        return self.layer_norm(x, self.weight, ops.zeros_like(self.weight))[0]


class Block(nn.Cell):
    def __init__(self):
        super().__init__()
        self.norm1 = LayerNorm()
        self.qkv = dense(EMBEDDING, 3 * EMBEDDING)
        self.projection = dense(EMBEDDING, EMBEDDING)
        self.norm2 = LayerNorm()
        self.expand = dense(EMBEDDING, 4 * EMBEDDING)
        self.contract = dense(4 * EMBEDDING, EMBEDDING)

    def construct(self, x, later):  # (N, L, 128), (L, L)
        heads = self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3, HEADS, -1)  # (N, L, 3, 4, 32)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (N, 4, L, 32)
        scores = ops.matmul(q, k.swapaxes(2, 3)) / math.sqrt(EMBEDDING // HEADS)  # (N, 4, L, L)
        attended = ops.matmul(ops.softmax(scores.masked_fill(later, -math.inf)), v)  # (N, 4, L, 32)
        x = x + self.projection(attended.swapaxes(1, 2).reshape(x.shape))  # (N, L, 128)
        return x + self.contract(ops.gelu(self.expand(self.norm2(x)), approximate="tanh"))  # (N, L, 128)


class GPT(nn.Cell):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, EMBEDDING, embedding_table=Normal(0.02))
        self.position_embedding = nn.Embedding(CONTEXT, EMBEDDING, embedding_table=Normal(0.02))
        self.blocks = nn.CellList([Block() for _ in range(LAYERS)])
        self.norm = LayerNorm()

    def construct(self, tokens):  # (N, L)
        length = tokens.shape[1]
        later = ops.triu(ops.ones((length, length)), 1).bool()
        x = self.token_embedding(tokens) + self.position_embedding(ops.arange(length))  # (N, L, 128)
        for block in self.blocks:
            x = block(x, later)
        return ops.matmul(self.norm(x), self.token_embedding.embedding_table.T)  # (N, L, 256)


def build_model():
    return GPT()


# %% Loss
def loss_fn(model, tokens, labels):
    return ops.cross_entropy(model(tokens).flatten(start_dim=0, end_dim=1), labels.flatten())


# %% Optimizer
def rate_factor(step):
    if step < WARMUP_STEPS:
        return step / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * min(1, (step - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS))))


def make_optimizer(model):
    matrices = [parameter for parameter in model.trainable_params() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.trainable_params() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, LEARNING_RATE, (BETA1, BETA2), EPSILON)  # nn.AdamWeightDecay corrects no bias
    return optimizer, optim.lr_scheduler.LambdaLR(optimizer, rate_factor)


# %% Train step
def train_step(model, optimizer, scheduler, tokens, labels):
    model.set_train()
    loss, gradients = ms.value_and_grad(loss_fn, None, optimizer.parameters)(model, tokens, labels)
    norm = ops.sqrt(sum(gradient.square().sum() for gradient in gradients))
    scale = ops.minimum(CLIP_NORM / norm, 1.0)  # ops.clip_by_global_norm is deprecated, and compiled at every call
    optimizer(tuple(gradient * scale for gradient in gradients))
    scheduler.step()
    return loss


# %% Evaluation
def evaluate(model, tokens, labels):
    model.set_train(False)
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += loss_fn(model, x, y) * len(x)
    return nats.item() / len(tokens) / math.log(2)  # bits per byte


def generate(model, prompt, length):
    tokens = ms.Tensor([list(prompt)], ms.int32)  # (1, L)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1]  # (1, 256)
        tokens = ops.cat([tokens, ops.multinomial(ops.softmax(logits), 1).int()], axis=1)
    return bytes(tokens[0].tolist())


# %% Run
def main():
    ms.set_seed(SEED)  # NumPy's too
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer, scheduler = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, scheduler, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
