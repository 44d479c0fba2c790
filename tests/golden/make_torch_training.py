"""Writes torch_training.json: PyTorch's own SGD, MultiStepLR and loss.

  pip install torch==2.13.0 && python tests/golden/make_torch_training.py

A linear classifier in float64, ten updates, so that the comparison can be
exact to rounding. Only this script needs torch; the test reads the file.
"""

import json
import pathlib

import torch


def main():
  torch.manual_seed(0)
  torch.set_default_dtype(torch.float64)
  steps, batch, features, classes = 10, 4, 3, 5
  x = torch.randn(steps, batch, features)
  y = torch.randint(classes, (steps, batch))
  model = torch.nn.Linear(features, classes)
  start = {k: v.tolist() for k, v in model.state_dict().items()}
  runs = {}
  for nesterov in (False, True):
    model.load_state_dict({k: torch.tensor(v) for k, v in start.items()})
    optimizer = torch.optim.SGD(
      model.parameters(),
      lr=0.1,
      momentum=0.9,
      weight_decay=5e-4,
      nesterov=nesterov,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
      optimizer, milestones=[3, 6], gamma=0.2
    )
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    rows = []
    for t in range(steps):
      optimizer.zero_grad()
      loss = loss_fn(model(x[t]), y[t])
      loss.backward()
      rate = optimizer.param_groups[0]['lr']
      optimizer.step()
      schedule.step()
      rows.append(
        {
          'loss': loss.item(),
          'learning_rate': rate,
          'weight': model.weight.tolist(),
          'bias': model.bias.tolist(),
        }
      )
    runs['nesterov' if nesterov else 'momentum'] = rows
  out = pathlib.Path(__file__).with_name('torch_training.json')
  out.write_text(
    json.dumps(
      {
        'torch': torch.__version__,
        'x': x.tolist(),
        'y': y.tolist(),
        'start': start,
        'runs': runs,
      }
    )
    + '\n'
  )


if __name__ == '__main__':
  main()
