"""Kinds of torchvision and timm: their own classes, thin and on small pictures.

Each function makes a `Kind`, or skips where its package is not installed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, default_collate

from tests.cases import import_torchvision
from tests.full.zoo.kind import Kind
from tests.full.zoo.libraries import package
from tests.full.zoo.plain import (
    ALL,
    IN_GROUPS,
    classes,
    classified,
    in_tuples,
    masks,
    pictures,
    summed_losses,
    three_outputs,
    two_masks,
)


def torchvision_detection() -> Any:
    """torchvision.models.detection, or skip where torchvision was not built for this torch."""
    torchvision = import_torchvision()
    if not torchvision.extension._has_ops():
        pytest.skip("torchvision's operators do not load with this torch")
    return torchvision.models.detection


def of_pictures(model: nn.Module, **options: Any) -> Kind:
    """A model on the pictures, with the options of a `Kind`."""
    usual: dict[str, Any] = {"data": TensorDataset(*pictures()), "objective": classified, "examples": ALL}
    return Kind(model=model, **usual | options)


def googlenet() -> Kind:
    """Three outputs in training mode and one in evaluation mode; group norm in the place of batch norm."""
    googlenet = package("torchvision.models.googlenet")

    class Convolution(nn.Sequential):
        def __init__(self, channels: int, out: int, **options: Any) -> None:
            super().__init__(nn.Conv2d(channels, out, **options), nn.GroupNorm(4, out), nn.ReLU())

    inception, head = (
        partial(block, conv_block=Convolution) for block in (googlenet.Inception, googlenet.InceptionAux)
    )
    torch.manual_seed(0)
    model = googlenet.GoogLeNet(
        4, init_weights=False, blocks=[Convolution, inception, head], dropout=0.0, dropout_aux=0.0
    )
    x, y = (part[:32] for part in pictures())
    items = TensorDataset(functional.interpolate(x, 32), y)
    return of_pictures(model, data=items, objective=three_outputs, examples=range(32), max_examples=300)


def fully_convolutional() -> Kind:
    """A dict of outputs; its heads have batch norm and dropout."""
    models = import_torchvision().models
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    fcn = models.segmentation.fcn
    model = fcn.FCN(
        models._utils.IntermediateLayerGetter(body, {"1": "aux", "3": "out"}),
        fcn.FCNHead(8, 3),
        fcn.FCNHead(8, 3),
    )

    return of_pictures(
        model,
        data=TensorDataset(*masks()),
        objective=two_masks,
        **IN_GROUPS,
        doubts={"batch_norm", "random_masks"},
    )


def atrous_pyramid() -> Kind:
    """DeepLabV3: batch norm over one pixel for each picture, which refuses a batch of one."""
    models = import_torchvision().models
    torch.manual_seed(0)
    deeplab = models.segmentation.deeplabv3
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    head = nn.Sequential(deeplab.ASPP(8, [2, 4], 8), nn.Conv2d(8, 3, 1))
    model = deeplab.DeepLabV3(models._utils.IntermediateLayerGetter(body, {"1": "out"}), head)

    def loss(model: Any, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0])["out"], batch[1])

    return of_pictures(
        model,
        data=TensorDataset(*masks()),
        objective=loss,
        **IN_GROUPS,
        doubts={"batch_norm", "random_masks"},
    )


def boxed_pictures() -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Pictures of 32 × 32 pixels with one to three boxes each."""
    x, y = pictures()
    x = functional.interpolate(x, 32)
    counts = (classes(3, len(x), seed=2) + 1).tolist()
    items = []
    for i, n in enumerate(counts):
        corner = 16 * torch.rand(n, 2, generator=torch.Generator().manual_seed(i))
        size = 8 + 8 * torch.rand(n, 2, generator=torch.Generator().manual_seed(i + 500))
        target = {"boxes": torch.cat([corner, corner + size], 1), "labels": 1 + (y[i] + torch.arange(n)) % 3}
        items.append((x[i], target))
    return items


def of_boxes(model: nn.Module, **options: Any) -> Kind:
    items = boxed_pictures()
    return Kind(
        model=model,
        data=items,
        collate=in_tuples,
        objective=summed_losses,
        examples=ALL,
        **{"max_examples": 400} | options,
    )


def backbone(channels: int) -> nn.Module:
    torch.manual_seed(0)
    first, second = (nn.Conv2d(n, channels, 3, stride=2, padding=1) for n in (3, channels))
    body = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    body.out_channels = channels  # type: ignore[assignment]
    return body


def faster_rcnn() -> Kind:
    """Anchors and proposals are drawn at random, as many for each picture: the mean is over pictures."""
    detection = torchvision_detection()
    model = detection.FasterRCNN(
        backbone(8), min_size=32, max_size=32,
        rpn_anchor_generator=detection.rpn.AnchorGenerator(((8, 16),), ((1.0,),)),
        box_roi_pool=import_torchvision().ops.MultiScaleRoIAlign(["0"], 3, 2),
        box_head=detection.faster_rcnn.TwoMLPHead(72, 16), box_predictor=detection.faster_rcnn.FastRCNNPredictor(16, 4),
        rpn_batch_size_per_image=16, box_batch_size_per_image=8,
    )  # fmt: skip
    return of_boxes(model, draws=6, doubts={"random_masks"}, tolerance=0.1)


def retinanet() -> Kind:
    """Its losses are divided by the boxes of each picture, and then by the pictures."""
    detection = torchvision_detection()
    generator = detection.rpn.AnchorGenerator(((8, 16),), ((1.0,),))
    model = detection.RetinaNet(backbone(8), 4, min_size=32, max_size=32, anchor_generator=generator)
    return of_boxes(model)


def fcos() -> Kind:
    """Its losses are divided by the positive places of the whole batch."""
    detection = torchvision_detection()
    generator = detection.rpn.AnchorGenerator(((8,),), ((1.0,),))
    model = detection.FCOS(backbone(32), 4, min_size=32, max_size=32, anchor_generator=generator)
    return of_boxes(
        model, in_groups=True, groups=300, batch_size=4, max_examples=1200, tolerance=0.15, doubts={"weighted_mean"}
    )  # fmt: skip


def vision_transformer() -> Kind:
    models = import_torchvision().models
    torch.manual_seed(0)
    model = models.VisionTransformer(
        image_size=12, patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4
    )
    return of_pictures(model)


def timm_vit() -> Kind:
    timm = package("timm")
    torch.manual_seed(0)
    options = {
        "img_size": 12,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "weight_init": "jax",
    }
    return of_pictures(timm.create_model("vit_tiny_patch16_224", num_classes=4, **options))


def timm_mixup() -> Kind:
    """The collate function mixes each picture with another one of the batch, which must be even."""
    mixup = package("timm.data").Mixup(mixup_alpha=0.8, num_classes=4)

    def collate(rows: list[Any]) -> Any:
        return mixup(*default_collate(rows))

    x, y = pictures()
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True, collate_fn=collate)
    return replace(
        timm_vit(),
        data=loader,
        objective=None,
        loss=package("timm.loss").SoftTargetCrossEntropy(),
        **IN_GROUPS,
        doubts={"not_a_mean", "small_batches", "random_masks"},
    )


KINDS = [
    fully_convolutional, faster_rcnn, retinanet, fcos, vision_transformer, timm_vit, timm_mixup,
]  # fmt: skip
#: They take 20 to 30 s and belong to the lane of the statistics.
SLOW_KINDS = [googlenet, atrous_pyramid]
