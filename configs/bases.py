"""What the experiments on one data set share.

The settings of `cifar100`, `stanford_dogs` and `cub2011` follow the paper (Xu
et al., arXiv:2006.11653). They are an unverified transcription: written down
without the paper at hand, and to be checked against it.
"""

import ml_collections

from tsla.config.checks import validate
from tsla.config.forms import config_hash, default_config
from tsla.config.schema import FOLLOWING
from tsla.errors import InputError

# θ of each method, docs/methods.md, as its authors have it on a small set.
THETAS = {
  'label_smoothing': 0.1,
  'negative': -0.4,
  'max_suppression': 0.1,
  'online': 0.5,
  'margin': 0.1,
  'confidence_penalty': 0.1,
  'zipf': 1.0,
  'class_similarity': 0.1,
}


def digits() -> ml_collections.ConfigDict:
  """scikit-learn's 8×8 digits, a ResNet-8 and one-pixel shifts: seconds."""
  config = default_config()
  config.epochs = 30
  config.batch_size = 32
  config.checkpoint_every_epochs = 5
  config.eval_test_curve = False
  config.data.name = 'digits'
  config.data.validation = 0.1
  config.augment.pad = 1
  config.model.name = 'resnet8'
  config.model.width = 16
  config.optimizer.learning_rate = 0.03
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.schedule = 'cosine'
  return config


def fashion_mnist() -> ml_collections.ConfigDict:
  """4,000 images of clothes at 14 pixels: a second real set within minutes.

  Not the usual Fashion-MNIST of 60,000 images at 28 pixels: its accuracies
  compare with nothing that is published. `tsla idx` writes the file.
  """
  config = digits()
  config.epochs = 10
  config.eval_every_epochs = 5
  config.data.name = 'npz'
  config.data.path = 'data/fashion_mnist_4000.npz'
  config.data.image_size = 14
  config.augment.flip = True
  return config


def cifar100() -> ml_collections.ConfigDict:
  """ResNet-18 from scratch, 200 epochs. Unverified transcription."""
  config = default_config()
  config.epochs = 200
  config.batch_size = 128
  config.data.name = 'cifar100'
  config.data.mean = (0.5071, 0.4865, 0.4409)
  config.data.std = (0.2673, 0.2564, 0.2762)
  config.augment.pad = 4
  config.augment.flip = True
  config.model.name = 'resnet18'
  config.model.stem = 'cifar'
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 5e-4
  config.optimizer.schedule = 'step'
  config.optimizer.milestone_percent = (30, 60, 80)
  config.optimizer.decay_factor = 0.2
  return config


def fine_grained(name: str) -> ml_collections.ConfigDict:
  """ResNet-18 at 224 pixels, 90 epochs. Unverified transcription.

  It starts from ImageNet weights, as the paper does, which you provide: see
  docs/reproduce.md. `--config.model.weights=` starts from random ones.
  """
  config = default_config()
  config.epochs = 90
  config.batch_size = 256
  config.data.name = name
  config.data.image_size = 256
  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)
  config.augment.crop = 224
  config.augment.flip = True
  config.model.name = 'resnet18'
  config.model.stem = 'imagenet'
  config.model.weights = 'weights/resnet18.safetensors'
  config.optimizer.learning_rate = 0.01
  config.optimizer.weight_decay = 1e-4
  config.optimizer.schedule = 'step'
  config.optimizer.milestone_percent = (33.3, 66.7)
  config.optimizer.decay_factor = 0.1
  return config


def imagenet() -> ml_collections.ConfigDict:
  """ResNet-50 at 224 pixels, 90 epochs, batch 1,024: the usual recipe.

  Rate, batch, warm-up and milestones are those of Goyal et al., Accurate, Large
  Minibatch SGD, arXiv:1706.02677: 0.1 for each 256 images, five epochs of
  warm-up, a tenth of it at epochs 30, 60 and 80, Nesterov momentum 0.9, weight
  decay 1e-4, and crops of 8 to 100 % of an image's area. Other than there
  warm-up begins near 0, not at 0.1; BatchNorm sees all 1,024 images, not 32 at
  a time, is decayed too, and its last scales do not begin at 0; the last layer
  begins uniform, not normal; crops are made of squares of 256 pixels, and so
  are test images: docs/own-data.md.
  """
  config = fine_grained('imagenet2012')
  config.batch_size = 1024
  config.augment.crop_area = 0.08
  config.model.name = 'resnet50'
  config.model.weights = ''
  config.optimizer.learning_rate = 0.4
  config.optimizer.nesterov = True
  # In percent, so that a shorter run has them too.
  config.optimizer.milestone_percent = tuple(e / 0.9 for e in (30, 60, 80))
  config.optimizer.warmup_percent = 5 / 0.9
  return config


def own() -> ml_collections.ConfigDict:
  """ResNet-18, 60 epochs, on images of your own, which say the rest."""
  config = default_config()
  config.epochs = 60
  config.batch_size = 8  # until they are read
  config.from_data = FOLLOWING
  config.eval_test_curve = False
  config.checkpoint_every_epochs = 5
  config.data.name = 'folder'
  config.data.validation = 0.1
  config.data.skip_corrupt = True
  config.model.name = 'resnet18'
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_percent = 5.0
  return config


def taught_by(
  config: ml_collections.ConfigDict,
  name: str,
  teacher: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """ŷ is the softmax of the run of `teacher`, in the directory it runs in.

  Which model the paper takes is not known here; the baseline of the same data
  set and seed serves unless `--config.teacher.run` names another run.
  """
  config.smoothing.target = 'teacher'
  config.teacher.run = f'runs/{name}-{config_hash(validate(teacher))}'
  return config


def lsr(
  config: ml_collections.ConfigDict, theta: float
) -> ml_collections.ConfigDict:
  """Label smoothing with strength `theta`, to the end."""
  config.smoothing.schedule = 'constant'
  config.smoothing.theta = theta
  return config


def method(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """A method of `THETAS`, to the end; class_similarity wants a teacher.run."""
  if name not in THETAS:
    raise InputError(
      f'config argument {name!r}: no method',
      allowed=', '.join(THETAS),
      cure='--config=FILE.py:margin',
    )
  if name == 'class_similarity':  # label smoothing, and where ŷ comes from
    config.smoothing.target = name
  else:
    config.smoothing.method = name
  return lsr(config, THETAS[name])


def tsla(
  config: ml_collections.ConfigDict,
  theta: float,
  drop_epoch: str | None,
  default: float,
) -> ml_collections.ConfigDict:
  """TSLA(s): label smoothing until epoch s = `drop_epoch`, then none.

  Args:
    config: what the data set's experiments share.
    theta: the smoothing strength of stage one.
    drop_epoch: the config's argument, `--config=FILE.py:DROP_EPOCH`.
    default: the drop epoch where there is no argument; it scales with the run.
  """
  config.smoothing.schedule = 'two_stage'
  config.smoothing.theta = theta
  if not drop_epoch:
    config.smoothing.drop_percent = 100 * default / config.epochs
    return config
  try:
    config.smoothing.drop_epochs = float(drop_epoch)
  except ValueError:
    raise InputError(
      f'config argument {drop_epoch!r}: the s of TSLA(s), when smoothing ends',
      allowed='an epoch',
      cure=f'--config=FILE.py:{default:g}',
    ) from None
  return config


def probed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The gradient's variance is measured each epoch."""
  config.variance.every_epochs = 1
  return config


def auto(
  config: ml_collections.ConfigDict, theta: float, rule: str
) -> ml_collections.ConfigDict:
  """Label smoothing until `rule` ends it, in `[10 %, 90 %]` of the run.

  Rule optimal follows θ* from the start to the end instead.
  """
  config.smoothing.schedule = 'auto'
  config.smoothing.theta = theta
  config.smoothing.rule = rule
  if rule != 'optimal':
    config.smoothing.min_percent = 10.0
    config.smoothing.max_percent = 90.0
  return config


def control(
  config: ml_collections.ConfigDict,
  schedule: str,
  theta: float,
  drop_epoch: float,
) -> ml_collections.ConfigDict:
  """Another θ(t) with the area under it of TSLA(drop_epoch), `theta · s`.

  Args:
    config: what the data set's experiments share.
    schedule: 'linear' or 'cosine', which decay from 2θ to 0 at s; 'rising',
      which rises from 0 to what gives the area at the end of the run; or
      'reversed', which smooths with θ in the last s epochs instead of the
      first.
    theta: of TSLA's stage one.
    drop_epoch: its s.
  """
  config.smoothing.schedule = schedule
  match schedule:
    case 'linear' | 'cosine':
      config.smoothing.theta = 2 * theta
      config.smoothing.drop_epochs = drop_epoch
    case 'rising':
      config.smoothing.theta = 2 * theta * drop_epoch / config.epochs
    case 'reversed':
      config.smoothing.theta = theta
      config.smoothing.drop_epochs = config.epochs - drop_epoch
    case _:
      raise ValueError(f'schedule = {schedule!r} is no control')
  return config
