"""Writes torch_losses.json: PyTorch's weighted, smoothed losses.

  pip install torch==2.13.0 && python tests/golden/make_torch_losses.py

In float64. Only this script needs torch; the tests read the file.
"""

import json
import pathlib

import torch


def main():
  torch.manual_seed(0)
  torch.set_default_dtype(torch.float64)
  batch, classes = 7, 5
  z = 2 * torch.randn(batch, classes)
  labels = torch.randint(classes, (batch,))
  labels[2] = -100
  soft = torch.softmax(torch.randn(batch, classes), -1)
  weights = torch.rand(classes) + 0.2
  answers = torch.randint(2, (batch, classes)).to(z)
  cases = []
  for theta in (0.0, 0.1, 0.4, 1.0):
    for target in ('labels', 'soft', 'answers'):
      for reduction in ('none', 'sum', 'mean'):
        logits = z.clone().requires_grad_()
        if target == 'answers':
          smoothed = (1 - theta) * answers + theta / 2
          loss = torch.nn.BCEWithLogitsLoss(reduction=reduction)(
            logits, smoothed
          )
        else:
          loss = torch.nn.CrossEntropyLoss(
            weight=weights,
            label_smoothing=theta,
            ignore_index=-100,
            reduction=reduction,
          )(logits, labels if target == 'labels' else soft)
        loss.sum().backward()
        cases.append(
          {
            'theta': theta,
            'target': target,
            'reduction': reduction,
            'loss': loss.tolist(),
            'gradient': logits.grad.tolist(),
          }
        )
  result = {
    'torch': torch.__version__,
    'logits': z.tolist(),
    'labels': labels.tolist(),
    'soft': soft.tolist(),
    'answers': answers.tolist(),
    'weights': weights.tolist(),
    'cases': cases,
  }
  path = pathlib.Path(__file__).with_name('torch_losses.json')
  path.write_text(json.dumps(result) + '\n')


if __name__ == '__main__':
  main()
