"""GPT on the bytes of IMDB in PaddlePaddle."""

# %% Imports
import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.io import DataLoader, TensorDataset
from paddle.optimizer import AdamW
from paddle.optimizer.lr import LambdaDecay

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
    train = paddle.to_tensor(train_tokens, "int64"), paddle.to_tensor(train_labels, "int64")
    test = paddle.to_tensor(test_tokens, "int64"), paddle.to_tensor(test_labels, "int64")
    return train, test


def batches(tokens, labels, shuffle):
    return DataLoader(TensorDataset([tokens, labels]), batch_size=BATCH_SIZE, shuffle=shuffle)


# %% Model
normal = nn.initializer.Normal(std=0.02)


def norm():
    return nn.LayerNorm(EMBEDDING, NORM_EPSILON, bias_attr=False)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, weight_attr=normal, bias_attr=False)


class Block(nn.Layer):
    def __init__(self):
        super().__init__()
        self.norm1 = norm()
        self.qkv = linear(EMBEDDING, 3 * EMBEDDING)
        self.projection = linear(EMBEDDING, EMBEDDING)
        self.norm2 = norm()
        self.expand = linear(EMBEDDING, 4 * EMBEDDING)
        self.contract = linear(4 * EMBEDDING, EMBEDDING)

    def forward(self, x):  # (N, L, 128)
        heads = self.qkv(self.norm1(x)).reshape([0, 0, 3, HEADS, -1])  # (N, L, 3, 4, 32); 0 keeps a size
        q, k, v = heads.unbind(2)  # each (N, L, 4, 32)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (N, L, 4, 32)
        x = x + self.projection(attended.flatten(2))  # (N, L, 128)
        return x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate=True))  # (N, L, 128)


class GPT(nn.Layer):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, EMBEDDING, weight_attr=normal)
        self.position_embedding = nn.Embedding(CONTEXT, EMBEDDING, weight_attr=normal)
        self.blocks = nn.LayerList([Block() for _ in range(LAYERS)])
        self.norm = norm()

    def forward(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(paddle.arange(tokens.shape[1]))  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return paddle.matmul(self.norm(x), self.token_embedding.weight, transpose_y=True)  # (N, L, 256)


def build_model():
    return GPT()


# %% Loss
def loss_fn(model, tokens, labels):
    return F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())


# %% Optimizer
def rate_factor(step):
    if step < WARMUP_STEPS:
        return step / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * min(1, (step - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS))))


def make_optimizer(model):
    matrices = {parameter.name for parameter in model.parameters() if parameter.ndim == 2}
    decays = {"weight_decay": WEIGHT_DECAY, "apply_decay_param_fun": lambda name: name in matrices}
    clip = nn.ClipGradByGlobalNorm(CLIP_NORM)
    schedule = LambdaDecay(LEARNING_RATE, rate_factor)
    optimizer = AdamW(schedule, BETA1, BETA2, EPSILON, model.parameters(), grad_clip=clip, **decays)
    return optimizer, schedule


# %% Train step
def train_step(model, optimizer, schedule, tokens, labels):
    model.train()
    loss = loss_fn(model, tokens, labels)
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    schedule.step()
    return loss


# %% Evaluation
@paddle.no_grad()
def evaluate(model, tokens, labels):
    model.eval()
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += loss_fn(model, x, y) * len(x)
    return nats.item() / len(tokens) / math.log(2)  # bits per byte


@paddle.no_grad()
def generate(model, prompt, length):
    tokens = paddle.to_tensor([list(prompt)])  # (1, L)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1]  # (1, 256)
        tokens = paddle.concat([tokens, paddle.multinomial(F.softmax(logits), 1)], axis=1)
    return bytes(tokens[0].tolist())


# %% Run
def main():
    paddle.seed(SEED)
    np.random.seed(SEED)  # DataLoader shuffles with NumPy
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer, schedule = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, schedule, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
