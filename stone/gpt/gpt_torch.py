"""GPT on the bytes of IMDB in PyTorch."""

# %% Imports
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

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
DEVICE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


# %% Data
def load_data():
    (train_tokens, train_labels), (test_tokens, test_labels) = data.imdb_bytes(CONTEXT)  # (N, 128) and what follows
    train = torch.from_numpy(train_tokens).long(), torch.from_numpy(train_labels).long()
    test = torch.from_numpy(test_tokens).long(), torch.from_numpy(test_labels).long()
    return train, test


def batches(tokens, labels, shuffle):
    return DataLoader(TensorDataset(tokens, labels), BATCH_SIZE, shuffle=shuffle, pin_memory=DEVICE.type == "cuda")


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

    def forward(self, x):  # (N, L, 128)
        heads = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1))  # (N, L, 3, 4, 32)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (N, 4, L, 32)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (N, 4, L, 32)
        x = x + self.projection(attended.transpose(1, 2).flatten(2))  # (N, L, 128)
        return x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))  # (N, L, 128)


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.position_embedding = nn.Embedding(CONTEXT, EMBEDDING)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(EMBEDDING, NORM_EPSILON, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):  # (N, L)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token_embedding.weight)  # (N, L, 256)


def build_model():
    return GPT().to(DEVICE)


# %% Loss
def loss_fn(model, tokens, labels):
    return F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())


# %% Optimizer
def rate_factor(step):
    if step < WARMUP_STEPS:
        return step / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * min(1, (step - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS))))


def make_optimizer(model):
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON)
    return optimizer, LambdaLR(optimizer, rate_factor)


# %% Train step
def train_step(model, optimizer, scheduler, tokens, labels):
    tokens, labels = tokens.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
    model.train()
    optimizer.zero_grad()
    loss = loss_fn(model, tokens, labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    scheduler.step()
    return loss.detach()


# %% Evaluation
@torch.inference_mode()
def evaluate(model, tokens, labels):
    model.eval()
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += loss_fn(model, x.to(DEVICE), y.to(DEVICE)) * len(x)
    return nats.item() / len(tokens) / math.log(2)  # bits per byte


@torch.inference_mode()
def generate(model, prompt, length):
    tokens = torch.tensor([list(prompt)], device=DEVICE)  # (1, L)
    for _ in range(length):
        logits = model(tokens[:, -CONTEXT:])[:, -1]  # (1, 256)
        tokens = torch.cat([tokens, torch.multinomial(logits.softmax(1), 1)], dim=1)
    return bytes(tokens[0].tolist())


# %% Run
def main():
    torch.manual_seed(SEED)
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
