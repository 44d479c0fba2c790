"""Writes torch_resnet18.{safetensors,pth,npz} and torch_dtypes.{pth,npz}.

  pip install torch==2.13.0 safetensors && \\
    python tests/golden/make_torch_resnet.py

A ResNet-18 of PyTorch with torchvision's architecture and names, three
channels wide so that the files stay small, its weights in both file formats,
two images and its logits; and a checkpoint with every kind of tensor that
`torch.save` writes. Only this script needs torch; the tests read the files.
"""

import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent


class Block(nn.Module):
  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.downsample = None
    if stride != 1:
      self.downsample = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False),
        nn.BatchNorm2d(outputs),
      )

  def forward(self, x):
    y = torch.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    return torch.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet18(nn.Module):
  def __init__(self, width, classes):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    for stage in range(4):
      channels = width * 2**stage
      first = Block(
        channels // 2 if stage else width, channels, 2 if stage else 1
      )
      blocks = nn.Sequential(first, Block(channels, channels, 1))
      self.add_module(f'layer{stage + 1}', blocks)
    self.fc = nn.Linear(8 * width, classes)

  def forward(self, x):
    x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


def trained(width, classes, images):
  """A ResNet-18 whose BatchNorm weights and statistics are not the first ones.

  Returns:
    The network in evaluation, and its logits of `images`.
  """
  torch.manual_seed(0)
  model = ResNet18(width, classes)
  with torch.no_grad():
    for module in model.modules():
      if isinstance(module, nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(0, 0.3)
    for _ in range(5):
      model(3 * torch.randn(8, *images.shape[1:]) + 1)
    model.eval()
    return model, model(images)


def main():
  # Multiples of 1/64: exact in float32, and small when compressed.
  rng = np.random.default_rng(0)
  images = rng.integers(-128, 128, (2, 3, 64, 64)).astype(np.float32) / 64
  model, logits = trained(3, 5, torch.from_numpy(images))
  state_dict = model.state_dict()
  torch.save(state_dict, HERE / 'torch_resnet18.pth')
  save_file(state_dict, HERE / 'torch_resnet18.safetensors')
  np.savez_compressed(
    HERE / 'torch_resnet18.npz', images=images, logits=logits.numpy()
  )

  values = torch.randn(4, 6)
  tensors = {
    'float64': values.double(),
    'float16': values.half(),
    'bfloat16': values.bfloat16(),
    'int64': torch.arange(3) - 1,
    'bool': torch.tensor([True, False]),
    'transposed': values.t(),
    'slice': values[1:3, 2:5],
    'parameter': nn.Parameter(values[0].clone()),
    'scalar': torch.tensor(7),
    'empty': torch.zeros(0, 3),
  }
  wrapped = {f'module.{name}': tensor for name, tensor in tensors.items()}
  torch.save(
    {
      'epoch': 300,
      'best': 0.5,
      'step': 2**40,
      'betas': (0.9, 0.999, 0.5, -1),
      'tags': ['a', None, True],
      'state_dict': wrapped,
    },
    HERE / 'torch_dtypes.pth',
  )
  np.savez_compressed(
    HERE / 'torch_dtypes.npz',
    **{
      name: (t.float() if name == 'bfloat16' else t).detach().numpy()
      for name, t in tensors.items()
    },
  )


if __name__ == '__main__':
  main()
