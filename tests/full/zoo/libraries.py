"""Kinds of transformers, peft, torch_geometric and diffusers, as their documentation trains them.

Each function makes a `Kind`, or skips where its package is not installed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from tests.cases import import_torchvision
from tests.full.zoo.kind import Kind
from tests.full.zoo.plain import classes, drawn, pictures

#: Examples of a dataset.
N = 64
ALL = range(N)
#: Sizes of every transformer.
_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def package(name: str) -> Any:
    with suppress(pytest.skip.Exception):
        import_torchvision()  # which most of them look for
    return pytest.importorskip(name)


def own_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    found: Tensor = model(**batch).loss
    return found


def words(lengths: list[int], seed: int) -> list[Tensor]:
    return [classes(28, n, seed=seed + i) + 2 for i, n in enumerate(lengths)]


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """As DataCollatorForSeq2Seq: labels of unequal length end in -100."""
    fills = {"labels": -100}
    batch = {
        key: pad_sequence([row[key] for row in rows], batch_first=True, padding_value=fills.get(key, 0))
        for key in rows[0]
    }
    return batch | {"attention_mask": (batch["input_ids"] != 0).long()}


def t5() -> Kind:
    """Labels of unequal length: the mean is over the tokens of all of them."""
    transformers = package("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=30,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    lengths = (classes(7, N, seed=2) + 2).tolist()
    items = [{"input_ids": x, "labels": x.flip(0)} for x in words(lengths, 0)]
    return Kind(
        model=transformers.T5ForConditionalGeneration(config),
        data=items,
        collate=padded,
        examples=ALL,
        batch_sizes=[4, 16, 64],
        weights=lengths,
        doubts={"unequal_lengths"},
    )


def bert_for_pairs() -> Kind:
    """Two sentences in one row, told apart by their token types."""
    transformers = package("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, max_position_embeddings=24, num_labels=2, **_SIZES, **_NO_DROPOUT
    )
    first, second = (words((classes(8, N, seed=s) + 2).tolist(), 100 * s) for s in (2, 3))
    items = [
        {
            "input_ids": torch.cat([one, two]),
            "token_type_ids": torch.tensor([0] * len(one) + [1] * len(two)),
            "labels": torch.tensor(int(len(one) > len(two))),
        }
        for one, two in zip(first, second, strict=True)
    ]

    def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        labels = torch.stack([row["labels"] for row in rows])
        return padded([{k: v for k, v in row.items() if k != "labels"} for row in rows]) | {"labels": labels}

    return Kind(
        model=transformers.BertForSequenceClassification(config),
        data=items,
        collate=collate,
        examples=ALL,
    )


def masked_language_model() -> Kind:
    """The collate function hides some tokens at random and asks for them alone."""
    transformers = package("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=24, **_SIZES, **_NO_DROPOUT)
    items = words([12] * N, 0)

    def collate(rows: list[Tensor]) -> dict[str, Tensor]:
        x = torch.stack(rows)
        hidden = torch.rand(x.shape) < 0.3
        hidden[:, 0] = True
        return {"input_ids": x.masked_fill(hidden, 1), "labels": x.masked_fill(~hidden, -100)}

    def loss(model: Any, i: list[int]) -> Tensor:
        """A mean over hidden tokens, of which an example of average weight has 1 + 0.3 · 11."""
        batch = collate([items[k] for k in i])
        return own_loss(model, batch) * (batch["labels"] != -100).sum() / (4.3 * len(i))

    return Kind(
        model=transformers.BertForMaskedLM(config),
        data=items,
        collate=collate,
        loss_of=loss,
        examples=ALL,
        draws=6,
        doubts={"random_masks"},  # the numbers of hidden tokens differ too little to be seen
        tolerance=0.15,
    )


def vit() -> Kind:
    transformers = package("transformers")
    torch.manual_seed(1)
    config = transformers.ViTConfig(image_size=12, patch_size=4, num_labels=4, **_SIZES, **_NO_DROPOUT)
    x, y = pictures()
    items = [{"pixel_values": x[i], "labels": y[i]} for i in ALL]
    return Kind(
        model=transformers.ViTForImageClassification(config),
        data=items,
        examples=ALL,
        seed=1,  # seed 0 is one of the few whose interval misses; those of 1, 2 and 3 hold
    )


def experts_with_router_loss() -> Kind:
    """Mixtral: a small term that balances the experts over the batch changes the gradient by less than 1%."""
    transformers = package("transformers")
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=16,
        output_router_logits=True, router_aux_loss_coef=0.02,
    )  # fmt: skip
    x = torch.stack(words([8] * N, 0))
    items = [{"input_ids": row, "labels": row} for row in x]
    return Kind(
        model=transformers.MixtralForCausalLM(config),
        data=items,
        examples=ALL,
    )


def low_rank_adapters() -> Kind:
    """LoRA of peft on GPT-2: its second matrices start at zero."""
    transformers, peft = package("transformers"), package("peft")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    adapters = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    rows = classes(20, N, 1) + torch.arange(8)
    items = [{"input_ids": row, "labels": row} for row in rows]
    return Kind(
        model=peft.get_peft_model(transformers.GPT2LMHeadModel(config), adapters),
        data=items,
        examples=ALL,
        batch_sizes=[4, 16, 64],
        seed=1,  # of seeds 0 to 3, the interval of 0 begins 5% above the truth and the others hold it
        doubts={"frozen"},
    )


def torch_geometric_graphs() -> Kind:
    """torch_geometric's own loader, a graph isomorphism network and a label for every graph."""
    geometric = package("torch_geometric")
    return _geometric(geometric, per_node=False)


def torch_geometric_nodes() -> Kind:
    """A label for every node: graphs count by their nodes."""
    geometric = package("torch_geometric")
    return _geometric(geometric, per_node=True)


def _geometric(geometric: Any, *, per_node: bool) -> Kind:
    items = []
    for i in ALL:
        count = 4 + i % 7
        links = (drawn(count, count, seed=i) > 0.5).nonzero().T
        x, tag = drawn(count, 4, seed=i + 500), classes(2, count, seed=i)
        items.append(geometric.data.Data(x=x, edge_index=links, y=torch.tensor([i % 2]), tag=tag))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
            self.body, self.out = geometric.nn.GINConv(body), nn.Linear(8, 2)

        def forward(self, data: Any) -> Tensor:
            hidden = self.body(data.x, data.edge_index).relu()
            logits: Tensor = self.out(
                hidden if per_node else geometric.nn.global_add_pool(hidden, data.batch) / 5
            )
            return logits

    def loss(model: Any, data: Any) -> Tensor:
        return functional.cross_entropy(model(data), data.tag if per_node else data.y)

    torch.manual_seed(0)
    return Kind(
        model=Network(),
        data=geometric.loader.DataLoader(items, batch_size=16, shuffle=True),
        objective=loss,
        examples=ALL,
        weights=[item.num_nodes for item in items] if per_node else (),
        doubts={"unequal_lengths"} if per_node else set(),
    )


def diffusers_unet() -> Kind:
    """A U-Net of diffusers with its scheduler; steps and noise are drawn in the loss."""
    diffusers = package("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50)
    x = 2 * (drawn(32, 1, 8, 8) > 0).float() - 1

    def loss(model: Any, batch: Any) -> Tensor:
        noise, t = torch.randn_like(batch), torch.randint(0, 50, (len(batch),))
        return functional.mse_loss(model(scheduler.add_noise(batch, noise, t), t).sample, noise)

    return Kind(
        model=model,
        data=x,
        objective=loss,
        examples=range(32),
        draws=8,
        doubts={"random_masks"},
        tolerance=0.2,
    )


KINDS = [
    t5, bert_for_pairs, masked_language_model, vit, experts_with_router_loss, low_rank_adapters,
    torch_geometric_graphs, torch_geometric_nodes, diffusers_unet,
]  # fmt: skip
