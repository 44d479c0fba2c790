"""What a person sees: live on a terminal, lines in a pipe."""

import io
import sys
import time

import pytest

from tsla.config.durations import Durations
from tsla.runs.progress import Progress

ROW = {
  'stage': 1,
  'theta': 0.1,
  'loss': 2.0,
  'hard_loss': 1.5,
  'accuracy': 0.25,
}


class Terminal(io.StringIO):
  def isatty(self):
    return True

  def screen(self):
    """The lines that a person sees, the bar last."""
    lines = []
    for text in self.getvalue().split('\n'):
      line = ''
      for part in text.split('\r'):
        line = part + line[len(part) :]
      lines.append(line.rstrip())
    return lines


def terminal(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', stream := Terminal())
  monkeypatch.setenv('COLUMNS', '81')  # tqdm leaves one free
  monkeypatch.setenv('LINES', '25')
  return stream


@pytest.fixture
def clock(monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  return now


def progress(**options):
  durations = Durations(steps_per_epoch=10, total_steps=100)
  return Progress(durations, batch_size=32, first_step=0, **options)


def test_rate_and_eta_leave_out_compilation_and_evaluation(monkeypatch, clock):
  stream = terminal(monkeypatch)
  shown = progress()
  clock[0] += 50  # compilation
  assert shown.update(10, ROW, clock[0]) is None
  assert '50 s with compiling' in stream.screen()[-1]
  clock[0] += 2
  assert shown.update(20, ROW, clock[0]) == 10 * 32 / 2
  clock[0] += 8  # evaluation
  shown.skip_time()
  clock[0] += 2
  assert shown.update(30, ROW, clock[0]) == 10 * 32 / 2
  # 20 updates in 12 s, evaluation included: 70 more take 42 s.
  for part in (' 30 % |', '160 images/s', '0:42'):
    assert part in stream.screen()[-1]


def test_a_pipe_gets_a_line_every_few_seconds_and_the_last(monkeypatch, clock):
  monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
  shown = progress()
  for step in range(10, 101, 10):
    clock[0] += 1
    shown.update(step, ROW, clock[0], stays=step == 90)
  lines = stream.getvalue().splitlines()
  assert [line.split('/')[0] for line in lines] == [
    'epoch 1.0',
    'epoch 7.0',
    'epoch 9.0',
    'epoch 10.0',
  ]


def test_a_terminal_keeps_the_row_of_each_epoch_above_the_bar(
  monkeypatch, clock
):
  stream = terminal(monkeypatch)
  shown = progress()
  for step in range(5, 26, 5):
    clock[0] += 1
    # In the midst of an epoch only what is asked for stays.
    with shown.compiling('update'):
      pass
    shown.update(step, ROW | {'loss': float(step)}, clock[0], stays=step == 25)
  shown.say('dropped')
  text = 'stage 1  theta 0.1  loss {:.4f}  hard 1.5000  acc 25.00 %'
  *rows, bar = stream.screen()
  assert rows == [
    'compiling the update, once',
    f'epoch 1.0/10  {text.format(10)}',
    f'epoch 2.0/10  {text.format(20)}',
    f'epoch 2.5/10  {text.format(25)}',
    'dropped',
  ]
  assert bar.startswith(' 25 % |')
  assert len(bar) <= 80
  shown.close()
  assert stream.screen() == [*rows, '']


def test_only_the_first_process_speaks(monkeypatch, clock):
  monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
  shown = progress(shown=False)
  shown.say('hello')
  for step in (10, 20):
    clock[0] += 10
    shown.update(step, ROW, clock[0])
  assert stream.getvalue() == ''
