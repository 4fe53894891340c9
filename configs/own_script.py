"""A training script as anybody has one; `bnoise probe own_script.yaml` uses its pieces where they are."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class TrainingSet(Dataset):
    """Digits, each moved by up to a pixel at random."""

    def __init__(self):
        digits = load_digits()
        self.images = torch.tensor(digits.images / 16, dtype=torch.float32)
        self.labels = torch.tensor(digits.target)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        down, right = torch.randint(-1, 2, (2,)).tolist()
        image = torch.roll(self.images[index], (down, right), (0, 1))
        return {"image": image, "label": self.labels[index]}


def build_model(width=64):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, 10))


def training_loss(model, batch, smoothing=0.0):
    return functional.cross_entropy(model(batch["image"]), batch["label"], label_smoothing=smoothing)


def main():
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(20):
        for batch in DataLoader(TrainingSet(), batch_size=32, shuffle=True):
            loss = training_loss(model, batch, smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
