"""Prune a trained network in one call, and see what is left.

    python examples/prune_once.py

A small convolutional network learns scikit-learn's handwritten digits (1,797 images, 8 x 8), is
cut to a tenth of its weights, and is then fine-tuned with the zeros held in place.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import regrow


def digits():
    """Training and test sets, as pairs of images and labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels))
    train, test = order[:1400], order[1400:]
    return (images[train], labels[train]), (images[test], labels[test])


def network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(model, optimizer, images, labels, epochs):
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(50):
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()


@torch.no_grad()
def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()


def main(epochs, sparsity):
    torch.manual_seed(0)
    train_set, test_set = digits()
    model = network()
    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), *train_set, epochs)
    print(f"dense: test accuracy {accuracy(model, *test_set):.3f}")

    report = regrow.prune(model, sparsity)
    print(report)
    print(f"pruned: test accuracy {accuracy(model, *test_set):.3f}")

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    program = regrow.recipes.one_shot(sparsity, epochs, criterion="magnitude")
    pruning = regrow.attach(model, optimizer, program)  # holds the zeros from now on
    for _ in range(epochs):
        train(model, optimizer, *train_set, 1)
        pruning.epoch_end()
    pruning.finalize()
    print(f"fine-tuned: test accuracy {accuracy(model, *test_set):.3f}")
    print(f"sparsity {regrow.inspect(model).sparsity:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="of training and of fine-tuning")
    parser.add_argument("--sparsity", type=float, default=0.9, help="the fraction removed")
    options = parser.parse_args()
    main(options.epochs, options.sparsity)
