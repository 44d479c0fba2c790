"""Writes archives in the genuine form of the data sets, for tests."""

import hashlib
import io
import tarfile

import numpy as np
import scipy.io
from PIL import Image


def write_cifar100(path, train=120, test=20, seed=0):
  """Writes a small cifar-100-binary.tar.gz of random images.

  Args:
    path: the file that is written.
    train: number of training records.
    test: number of test records.
    seed: of the pixels and labels.

  Returns:
    A dict: train_images and test_images `u8[N, 32, 32, 3]`, train_labels and
    test_labels `i32[N]`, class_names, sha256 and size of the file.
  """
  rng = np.random.default_rng(seed)
  class_names = [f'fine_{label:02d}' for label in range(100)]
  coarse_names = [f'coarse_{label:02d}' for label in range(20)]
  files = {
    'fine_label_names.txt': '\n'.join(class_names).encode() + b'\n\n',
    'coarse_label_names.txt': '\n'.join(coarse_names).encode() + b'\n\n',
  }
  written = {'class_names': tuple(class_names)}
  for split, count in (('train', train), ('test', test)):
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.permutation(np.arange(count, dtype=np.int32) % 100)
    records = bytearray()
    for image, label in zip(images, labels, strict=True):
      red, green, blue = image[..., 0], image[..., 1], image[..., 2]
      planes = red.tobytes() + green.tobytes() + blue.tobytes()
      records += bytes([label // 5, label]) + planes
    files[f'{split}.bin'] = bytes(records)
    written |= {f'{split}_images': images, f'{split}_labels': labels}
  return written | _write_tar(
    path, {f'cifar-100-binary/{name}': files[name] for name in files}
  )


def write_stanford_dogs(folder, test=30, seed=0):
  """Writes images.tar and lists.tar as Stanford Dogs has them.

  Args:
    folder: where they are written.
    test: number of test images; there is one training image a class.
    seed: of the pixels.

  Returns:
    A dict: archives, each file's path, sha256 and size; train and test, lists
    of (JPEG bytes, label); class_names.
  """
  rng = np.random.default_rng(seed)
  # Sorted as the folders are, though not in the order of the lists.
  folders = [f'n{2085620 + 7 * k:08d}-Toy_hound-{k:03d}' for k in range(120)]
  order = rng.permutation(120).tolist()
  files, lists, written = {}, {}, {}
  for split, labels in (('train', order), ('test', order[:test])):
    names = [f'{folders[k]}/{folders[k][:9]}_{split}.jpg' for k in labels]
    photos = [_jpeg(rng, index) for index in range(len(names))]
    files |= {f'Images/{n}': p for n, p in zip(names, photos, strict=True)}
    written[split] = list(zip(photos, labels, strict=True))
    lists[f'{split}_list.mat'] = names
  lists['file_list.mat'] = lists['train_list.mat'] + lists['test_list.mat']
  # In the archive, though in neither list.
  files[f'Images/{folders[0]}/{folders[0][:9]}_1.jpg'] = _jpeg(rng, 0)
  mats = {}
  for name, names in lists.items():
    buffer = io.BytesIO()
    cells = np.array(names, object)[:, None]
    numbers = [[folders.index(n.split('/')[0]) + 1.0] for n in names]
    scipy.io.savemat(buffer, {'file_list': cells, 'labels': numbers})
    mats[name] = buffer.getvalue()
  return written | {
    'archives': [
      _write_tar(folder / 'images.tar', files),
      _write_tar(folder / 'lists.tar', mats),
    ],
    'class_names': tuple(name.lower() for name in folders),
  }


def write_cub2011(folder, test=30, seed=0):
  """Writes CUB_200_2011.tgz as CUB-200-2011 has it; as write_stanford_dogs."""
  rng = np.random.default_rng(seed)
  classes = [f'{k + 1:03d}.Small_Bird{k}' for k in range(200)]
  order = rng.permutation(200).tolist()
  splits = ['train'] * 200 + ['test'] * test
  labels = order + order[:test]
  shuffled = rng.permutation(len(labels)).tolist()
  # Folders have entries of their own, and macOS left its marks.
  files = {'./CUB_200_2011/images/._001.Small_Bird0': b'not an image'}
  images, numbers, marks = [], [], []
  written = {'train': [], 'test': []}
  for index, place in enumerate(shuffled, 1):
    label, split = labels[place], splits[place]
    photo = _jpeg(rng, index)
    name = f'{classes[label]}/Small_Bird{label}_{index:04d}_{place}.jpg'
    files[f'./CUB_200_2011/images/{name}'] = photo
    images.append(f'{index} {name}')
    numbers.append(f'{index} {label + 1}')
    marks.append(f'{index} {int(split == "train")}')
    written[split].append((photo, label))
  lists = {
    'images.txt': images,
    'image_class_labels.txt': numbers,
    'train_test_split.txt': marks,
    'classes.txt': [f'{k + 1} {name}' for k, name in enumerate(classes)],
  }
  for name, lines in lists.items():
    text = '\n'.join(lines) + '\n'
    files[f'./CUB_200_2011/{name}'] = text.encode()
  item = _write_tar(folder / 'CUB_200_2011.tgz', files)
  return written | {'archives': [item], 'class_names': tuple(classes)}


def write_folder(folder, train=10, test=4, seed=0):
  """Writes FOLDER/{train,test}/CLASS with that many JPEGs of varied sizes."""
  rng = np.random.default_rng(seed)
  for split, count in (('train', train), ('test', test)):
    for name in ('ant', 'bee'):
      place = folder / split / name
      place.mkdir(parents=True)
      for index in range(count):
        (place / f'{index:03d}.jpg').write_bytes(_jpeg(rng, index))


def _jpeg(rng, index):
  """Encodes noise, some of it grey, CMYK or one pixel high."""
  height, width = rng.integers(20, 40, 2).tolist()
  height = 1 if index % 10 == 3 else height
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  mode = {1: 'L', 2: 'CMYK'}.get(index % 10, 'RGB')
  buffer = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(buffer, 'JPEG')
  return buffer.getvalue()


def _write_tar(path, files):
  """Writes `files`: name → content. Returns path, sha256 and size."""
  with tarfile.open(path, 'w' if path.suffix == '.tar' else 'w:gz') as tar:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  data = path.read_bytes()
  return {
    'path': path,
    'sha256': hashlib.sha256(data).hexdigest(),
    'size': len(data),
  }
