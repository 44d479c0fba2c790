"""Networks: images in, float32 logits out."""

from tsla.models.resnet import ResNet, create

__all__ = ['ResNet', 'create']
