"""Add bidirectional pruning to a training loop of your own: the lines marked with <-.

    python examples/own_loop.py

The network learns scikit-learn's handwritten digits, then is cut to 3 % of its weights along a
ramp, on which at every epoch some of the removed weights come back in place of others. The loop,
the model's class and its state-dict keys stay as they are.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import regrow


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(64)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.classifier(F.relu(self.hidden(x.flatten(1))))


def loss_fn(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def loaders():
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    whole = TensorDataset(images, torch.tensor(data.target))
    train, test = random_split(whole, [1400, 397])
    return DataLoader(train, batch_size=50, shuffle=True), DataLoader(test, batch_size=397)


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    model.train()
    return right / len(loader.dataset)


def fit(model, optimizer, loader, epochs, pruning=None):
    for _ in range(epochs):
        for batch in loader:
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        if pruning is not None:
            pruning.epoch_end()  # <- 2


def main(epochs):
    torch.manual_seed(0)
    train_loader, test_loader = loaders()
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(model, optimizer, train_loader, epochs)
    print(f"dense: test accuracy {accuracy(model, test_loader):.3f}")

    program = regrow.recipes.bidirectional(0.97, 2 * epochs)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=train_loader)  # <- 1
    fit(model, optimizer, train_loader, 2 * epochs, pruning)
    pruning.finalize()  # <- 3

    for event in pruning.events:
        print(f"epoch {event['epoch']}: {event['kind']} to sparsity {event['sparsity']:.4f}")
    print(f"pruned and regrown: test accuracy {accuracy(model, test_loader):.3f}")
    print(f"sparsity {pruning.sparsity:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--epochs", type=int, default=10, help="before pruning; it takes twice as many"
    )
    main(parser.parse_args().epochs)
