"""GPT on the bytes of IMDB in tinygrad."""

# %% Imports
import math
from functools import cache

import numpy as np
from tinygrad import Context, Tensor, TinyJit, nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE, EPOCHS = 64, 1
LEARNING_RATE, WARMUP_STEPS, DECAY_STEPS = 0.001, 100, 4000
BETA1, BETA2, EPSILON = 0.9, 0.95, 1e-8
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0
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
        yield Tensor(tokens[chosen]), Tensor(labels[chosen])


# %% Model
def normal(layer):
    layer.weight = Tensor.normal(*layer.weight.shape, std=0.02)
    return layer


class LayerNorm:  # nn.LayerNorm has a bias, or no weight
    def __init__(self):
        self.weight = Tensor.ones(EMBEDDING)

    def __call__(self, x):
        return x.layernorm(eps=NORM_EPSILON) * self.weight


class Block:
    def __init__(self):
        self.norm1 = LayerNorm()
        self.qkv = normal(nn.Linear(EMBEDDING, 3 * EMBEDDING, bias=False))
        self.projection = normal(nn.Linear(EMBEDDING, EMBEDDING, bias=False))
        self.norm2 = LayerNorm()
        self.expand = normal(nn.Linear(EMBEDDING, 4 * EMBEDDING, bias=False))
        self.contract = normal(nn.Linear(4 * EMBEDDING, EMBEDDING, bias=False))

    def __call__(self, x):  # (N, L, 128)
        heads = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (3, N, 4, L, 32)
        attended = heads[0].scaled_dot_product_attention(heads[1], heads[2], is_causal=True)  # (N, 4, L, 32)
        x = x + self.projection(attended.transpose(1, 2).flatten(2))  # (N, L, 128)
        return x + self.contract(self.expand(self.norm2(x)).gelu())  # (N, L, 128)


class GPT:
    def __init__(self):
        self.token_embedding = normal(nn.Embedding(VOCABULARY, EMBEDDING))
        self.position_embedding = normal(nn.Embedding(CONTEXT, EMBEDDING))
        self.blocks = [Block() for _ in range(LAYERS)]
        self.norm = LayerNorm()

    def __call__(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(Tensor.arange(tokens.shape[1]))  # (N, L, 128)
        return self.norm(x.sequential(self.blocks)).linear(self.token_embedding.weight.T)  # (N, L, 256)


def build_model():
    return GPT()


# %% Loss
def loss_fn(model, tokens, labels):
    return model(tokens).flatten(0, 1).sparse_categorical_crossentropy(labels.flatten())


# %% Optimizer
def make_optimizer(model):
    parameters = nn.state.get_parameters(model)
    matrices, vectors = ([one for one in parameters if one.ndim == ndim] for ndim in (2, 1))
    groups = (matrices, WEIGHT_DECAY), (vectors, 0.0)
    optimizers = [nn.optim.AdamW(group, LEARNING_RATE, BETA1, BETA2, EPSILON, decay) for group, decay in groups]
    return nn.optim.OptimizerGroup(*optimizers), Tensor.zeros(1).contiguous().realize()  # steps taken


def rate(steps):
    decay = ((steps - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS)).clip(0, 1)
    return LEARNING_RATE * (steps < WARMUP_STEPS).where(steps / WARMUP_STEPS, 0.5 * (1 + (math.pi * decay).cos()))


# %% Train step
@cache
def compiled_step(model, optimizer, steps, size):  # TinyJit records one model, and batches of one size
    @TinyJit
    @Context(TRAINING=1)
    def step(tokens, labels):
        optimizer.zero_grad()
        loss = loss_fn(model, tokens, labels).backward()
        norm = sum(parameter.grad.square().sum() for parameter in optimizer.params).sqrt().contiguous()
        for parameter in optimizer.params:
            parameter.grad = parameter.grad * (CLIP_NORM / norm).minimum(1)
        for part in optimizer.optimizers:
            part.lr.assign(rate(steps))
        return loss.realize(*optimizer.schedule_step(), steps.assign(steps + 1))

    return step


def train_step(model, optimizer, steps, tokens, labels):
    return compiled_step(model, optimizer, steps, len(labels))(tokens, labels)


# %% Evaluation
@cache
def compiled_loss(model, size):
    return TinyJit(lambda tokens, labels: loss_fn(model, tokens, labels).realize())


def evaluate(model, tokens, labels):
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += compiled_loss(model, len(y))(x, y).item() * len(y)
    return nats / len(tokens) / math.log(2)  # bits per byte


def generate(model, prompt, length):
    sample, text = TinyJit(lambda tokens: model(tokens)[0].softmax().multinomial().realize()), list(prompt)
    for _ in range(length):
        seen = text[-CONTEXT:]
        tokens = Tensor([seen + [0] * (CONTEXT - len(seen))])  # always one length, compiled once; no byte sees the rest
        text.append(int(sample(tokens).numpy()[len(seen) - 1, 0]))
    return bytes(text)


# %% Run
def main():
    Tensor.manual_seed(SEED)
    np.random.seed(SEED)
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer, steps = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, steps, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
