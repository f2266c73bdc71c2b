"""GPT on the bytes of IMDB in MLX."""

# %% Imports
import math
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

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
    (train_tokens, train_labels), (test_tokens, test_labels) = data.imdb_bytes(CONTEXT)  # (N, 128) and what follows
    return (mx.array(train_tokens), mx.array(train_labels)), (mx.array(test_tokens), mx.array(test_labels))


def batches(tokens, labels, shuffle):
    order = mx.random.permutation(len(labels)) if shuffle else mx.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(EMBEDDING, NORM_EPSILON, bias=False)
        self.qkv = nn.Linear(EMBEDDING, 3 * EMBEDDING, bias=False)
        self.projection = nn.Linear(EMBEDDING, EMBEDDING, bias=False)
        self.norm2 = nn.LayerNorm(EMBEDDING, NORM_EPSILON, bias=False)
        self.expand = nn.Linear(EMBEDDING, 4 * EMBEDDING, bias=False)
        self.contract = nn.Linear(4 * EMBEDDING, EMBEDDING, bias=False)

    def __call__(self, x):  # (N, L, 128)
        heads = mx.unflatten(self.qkv(self.norm1(x)), 2, (3, HEADS, -1))  # (N, L, 3, 4, 32)
        q, k, v = heads.transpose(2, 0, 3, 1, 4)  # each (N, 4, L, 32)
        scale = (EMBEDDING // HEADS) ** -0.5
        attended = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")  # (N, 4, L, 32)
        x = x + self.projection(attended.swapaxes(1, 2).flatten(2))  # (N, L, 128)
        return x + self.contract(nn.gelu_approx(self.expand(self.norm2(x))))  # (N, L, 128)


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.position_embedding = nn.Embedding(CONTEXT, EMBEDDING)
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = nn.LayerNorm(EMBEDDING, NORM_EPSILON, bias=False)
        normal = nn.init.normal(std=0.02)
        self.apply(lambda value: normal(value) if value.ndim == 2 else value)

    def __call__(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(mx.arange(tokens.shape[1]))  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return self.token_embedding.as_linear(self.norm(x))  # (N, L, 256)


def build_model():
    model = GPT()
    mx.eval(model.parameters())  # arrays are lazy: until now nothing has been drawn
    return model


# %% Loss
def loss_fn(model, tokens, labels):
    return nn.losses.cross_entropy(model(tokens), labels, reduction="mean")


# %% Optimizer
def is_matrix(name, value):
    return value.ndim == 2


def make_optimizer(model):
    warmup = optim.linear_schedule(0, LEARNING_RATE, WARMUP_STEPS)
    decay = optim.cosine_decay(LEARNING_RATE, DECAY_STEPS - WARMUP_STEPS)
    rate = optim.join_schedules([warmup, decay], [WARMUP_STEPS])

    def adamw(weight_decay):  # which corrects no bias by default
        return optim.AdamW(rate, [BETA1, BETA2], EPSILON, weight_decay, bias_correction=True)

    optimizer = optim.MultiOptimizer([adamw(WEIGHT_DECAY), adamw(0.0)], [is_matrix])
    optimizer.init(model.trainable_parameters())
    return optimizer


# %% Train step
def train_step(model, optimizer):
    state = [model.state, optimizer.state]  # what a compiled step reads and writes

    @partial(mx.compile, inputs=state, outputs=state)
    def update(tokens, labels):
        loss, gradients = nn.value_and_grad(model, loss_fn)(model, tokens, labels)
        gradients, _ = optim.clip_grad_norm(gradients, CLIP_NORM)
        optimizer.update(model, gradients)
        return loss

    def step(tokens, labels):
        loss = update(tokens, labels)
        mx.eval(loss, state)  # nothing is computed before; the graph would grow from step to step
        return loss

    return step


# %% Evaluation
def evaluate(model, tokens, labels):
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += loss_fn(model, x, y).item() * len(x)
    return nats / len(tokens) / math.log(2)  # bits per byte


def generate(model, prompt, length):
    tokens = mx.array([list(prompt)])  # (1, L)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1]  # (1, 256)
        tokens = mx.concatenate([tokens, mx.random.categorical(logits)[:, None]], axis=1)
    return bytes(tokens[0].tolist())


# %% Run
def main():
    mx.random.seed(SEED)
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    step = train_step(model, optimizer)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = step(tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
