"""Writes a finished run's network for others.

  python -m tsla export RUN --out=FILE.safetensors
  python -m tsla export RUN --out=DIR

The file has torchvision's names and layout; who loads it normalises. DIR gets
the way from pixels to probabilities as a program for CPU, GPU and TPU, and
model.json, which says what goes in and comes out. It runs without this package,
with jax and flatbuffers (which jax.export reads by):

  program = jax.export.deserialize(open('DIR/program.bin', 'rb').read())
  probabilities = program.call(images)  # uint8 (N, H, W, C), any N
"""

import pathlib

import jax
import jax.export
import jax.numpy as jnp

from tsla import files
from tsla.commands.parser import Parser, command
from tsla.errors import InputError
from tsla.models import ResNet, pretrained
from tsla.runs import directory
from tsla.training import finished

_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


@command
def main(parser: Parser) -> int:
  """Runs the command line; returns the exit code."""
  parser.add_argument('run', help='the directory of a finished run')
  text = 'a .safetensors file, or a new folder'
  parser.add_argument('--out', required=True, type=pathlib.Path, help=text)
  args = parser.parse_args()
  network, out = finished.load(args.run, args.run), args.out
  with files.untrusted(f'--out={out}', allowed=text):
    if out.suffix != '.safetensors':
      _write_program(out, network)
    elif isinstance(network.model, ResNet):
      state_dict = pretrained.to_state_dict(network.variables)
      pretrained.write_safetensors(out, state_dict)
    else:
      problem = f'--out={out}: torchvision has no names for this network'
      raise InputError(problem, allowed='a folder', cure='--out=DIR')
  print(out)
  return 0


def _write_program(folder: pathlib.Path, network: finished.Network) -> None:
  folder.mkdir(parents=True)
  description = network.description

  def probabilities(images: jax.Array) -> jax.Array:
    return jax.nn.softmax(network.logits(images) / description['temperature'])

  shape = (*jax.export.symbolic_shape('n'), *description['image_shape'])
  program = jax.export.export(jax.jit(probabilities), platforms=_PLATFORMS)(
    jax.ShapeDtypeStruct(shape, jnp.uint8)
  )
  files.write_whole(folder / 'program.bin', bytes(program.serialize()))
  sides = ', '.join(map(str, description['image_shape']))
  description = {
    **description,
    'input': f'uint8 [n, {sides}]: the pixels of n images',
    'output': f'float32 [n, {len(description["class_names"])}]: probabilities',
  }
  path = folder / directory.MODEL
  files.write_object(path, description, version=directory.MODEL_FORMAT)
