"""PyTorch on the same work: eager, compiled, and fed by a DataLoader.

Channels-last, autocast to bf16, SGD with momentum, label smoothing 0.1, crop
and flip. The data lie on the device, but for `dataloader`.

  python benchmarks/peer_torch.py --size=cifar --batch=256
"""

import argparse
import platform
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import common


class Block(nn.Module):
  """Two 3×3 convolutions and a shortcut."""

  def __init__(self, before: int, features: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(before, features, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(features)
    self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(features)
    self.shortcut = nn.Sequential()
    if stride != 1 or before != features:
      self.shortcut = nn.Sequential(
        nn.Conv2d(before, features, 1, stride, bias=False),
        nn.BatchNorm2d(features),
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [B, C, H, W] to [B, features, H/stride, W/stride]."""
    y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    y = self.bn2(self.conv2(y))
    return functional.relu(y + self.shortcut(x), inplace=True)


def network(size: common.Size) -> nn.Module:
  """The ResNet that `tsla.models.resnet` builds under the same name."""
  blocks = {'resnet8': (1, 1, 1), 'resnet18': (2, 2, 2, 2)}[size.model]
  stem = [7, 2, 3] if size.stem == 'imagenet' else [3, 1, 1]
  layers = [
    nn.Conv2d(size.channels, size.width, *stem, bias=False),
    nn.BatchNorm2d(size.width),
    nn.ReLU(inplace=True),
  ]
  if size.stem == 'imagenet':
    layers.append(nn.MaxPool2d(3, 2, 1))
  before = size.width
  for stage, number in enumerate(blocks):
    features = size.width * 2**stage
    for i in range(number):
      stride = 2 if stage and not i else 1
      layers.append(Block(before, features, stride))
      before = features
  layers += [
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(before, size.classes),
  ]
  return nn.Sequential(*layers)


def augmented(images: torch.Tensor, size: common.Size) -> torch.Tensor:
  """Crop and flip of a batch u8[B, C, H, W] where it lies, each its own."""
  number, device = len(images), images.device
  if size.pad:
    images = functional.pad(images, (size.pad,) * 4)
  room = images.shape[-1] - size.side + 1
  rows = torch.randint(room, (number, 1), device=device)
  columns = torch.randint(room, (number, 1), device=device)
  side = torch.arange(size.side, device=device)
  flip = torch.rand((number, 1), device=device) < 0.5
  across = torch.where(flip, side.flip(0), side)
  return images[
    torch.arange(number, device=device)[:, None, None, None],
    torch.arange(images.shape[1], device=device)[:, None, None],
    (rows + side)[:, None, :, None],
    (columns + across)[:, None, None, :],
  ]


class HostData(torch.utils.data.Dataset):
  """Examples that DataLoader workers crop and flip one by one."""

  def __init__(
    self, images: torch.Tensor, labels: torch.Tensor, size: common.Size
  ):
    self.images, self.labels, self.size = images, labels, size

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return augmented(self.images[index][None], self.size)[0], self.labels[index]


class Peer:
  """A network with its optimiser, and the loops over it."""

  def __init__(self, args: argparse.Namespace, device: torch.device):
    self.args, self.size = args, common.SIZES[args.size]
    self.device = device
    self.model = network(self.size).to(
      device, memory_format=torch.channels_last
    )
    fused = {'fused': True} if device.type == 'cuda' else {}
    self.optimizer = torch.optim.SGD(
      self.model.parameters(), 0.01, 0.9, weight_decay=5e-4, **fused
    )
    images, labels = (torch.from_numpy(a) for a in common.data(args))
    self.host = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    self.resident = tuple(a.to(device) for a in self.host)

  def update(
    self, forward: Callable, images: torch.Tensor, labels: torch.Tensor
  ) -> None:
    """One update; `forward` is the network, compiled or not."""
    x = (images.float() / 255 - 0.5) / 0.25
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(
      self.device.type, torch.bfloat16, enabled=self.args.dtype == 'bfloat16'
    ):
      logits = forward(x)
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    self.optimizer.step()

  def run(self, forward: Callable) -> None:
    """The updates of a call on resident data."""
    images, labels = self.resident
    order = torch.randperm(len(labels), device=self.device)
    for i in range(2 * self.args.steps):
      first = i * self.args.batch % (len(labels) - self.args.batch + 1)
      picked = order[first : first + self.args.batch]
      self.update(forward, augmented(images[picked], self.size), labels[picked])
    self.wait()

  def run_loader(self, forward: Callable) -> None:
    """The same, fed by the workers of a DataLoader."""
    done, wanted = 0, 2 * self.args.steps
    while done < wanted:
      for images, labels in self.loader:
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        self.update(forward, images, labels)
        done += 1
        if done == wanted:
          break
    self.wait()

  def start_loader(self, workers: int) -> None:
    """Makes the DataLoader; its workers stay between epochs."""
    self.loader = torch.utils.data.DataLoader(
      HostData(*self.host, self.size),
      self.args.batch,
      shuffle=True,
      drop_last=True,
      num_workers=workers,
      pin_memory=self.device.type == 'cuda',
      persistent_workers=workers > 0,
    )

  def wait(self) -> None:
    """Until the device has done what it was given."""
    if self.device.type == 'cuda':
      torch.cuda.synchronize()


def main() -> None:
  """Measures the forms that `--forms` names, in turn."""
  parser = common.arguments(
    __doc__, forms='eager,compile,dataloader', workers=8
  )
  parser.add_argument('--serve', action='store_true')
  args = common.parse(parser)
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  eager, compiled, fed = (Peer(args, device) for _ in range(3))
  forward = torch.compile(compiled.model)
  fed.start_loader(args.workers if args.size != 'tiny' else 0)
  contenders = {
    'eager': lambda: eager.run(eager.model),
    'compile': lambda: compiled.run(forward),
    'dataloader': lambda: fed.run_loader(fed.model),
  }
  contenders = {form: contenders[form] for form in args.forms.split(',')}
  name = (
    torch.cuda.get_device_name()
    if device.type == 'cuda'
    else f'cpu ({platform.machine()})'
  )
  common.run_contenders('peer_torch', args, name, contenders, 2 * args.steps)


if __name__ == '__main__':
  main()
