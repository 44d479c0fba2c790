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


@pytest.fixture
def clock(monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  return now


def progress(**options):
  durations = Durations(steps_per_epoch=10, total_steps=100)
  return Progress(durations, batch_size=32, first_step=0, **options)


def test_rate_and_eta_leave_out_compilation_and_evaluation(monkeypatch, clock):
  monkeypatch.setattr(sys, 'stderr', stream := Terminal())
  monkeypatch.setenv('COLUMNS', '200')
  shown = progress()
  clock[0] += 50  # compilation
  assert shown.update(10, ROW, clock[0]) is None
  clock[0] += 2
  assert shown.update(20, ROW, clock[0]) == 10 * 32 / 2
  clock[0] += 8  # evaluation
  shown.skip_time()
  clock[0] += 2
  assert shown.update(30, ROW, clock[0]) == 10 * 32 / 2
  last = stream.getvalue().split('\r')[-1]
  # 20 updates in 12 s, evaluation included: 70 more take 42 s.
  for part in ('epoch 3.0/10', 'stage 1', 'hard 1.5', '160 images/s', '0:42'):
    assert part in last


def test_a_pipe_gets_a_line_every_few_seconds_and_the_last(monkeypatch, clock):
  monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
  shown = progress()
  for step in range(10, 101, 10):
    clock[0] += 1
    shown.update(step, ROW, clock[0])
  lines = stream.getvalue().splitlines()
  assert [line.split('/')[0] for line in lines] == [
    'epoch 1.0',
    'epoch 7.0',
    'epoch 10.0',
  ]


def test_a_terminal_is_not_wrapped_and_a_message_clears_the_line(
  monkeypatch, clock
):
  monkeypatch.setattr(sys, 'stderr', stream := Terminal())
  monkeypatch.setenv('COLUMNS', '40')
  shown = progress()
  shown.update(10, ROW, clock[0])
  assert len(stream.getvalue().split('\r')[-1]) < 40
  shown.say('dropped')
  assert stream.getvalue().endswith('\rdropped\n')


def test_only_the_first_process_speaks(monkeypatch, clock):
  monkeypatch.setattr(sys, 'stderr', stream := io.StringIO())
  shown = progress(shown=False)
  shown.say('hello')
  for step in (10, 20):
    clock[0] += 10
    shown.update(step, ROW, clock[0])
  assert stream.getvalue() == ''
