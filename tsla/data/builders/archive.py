"""What the builders share: archives that are fetched, checked and read."""

import io
import pathlib
import posixpath
import tarfile
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums, resource

from tsla.errors import InputError

_PATIENCE = 8  # seconds until an unreachable host is given up
Downloads = tfds.download.DownloadManager
Splits = dict[str, Iterator[tuple[Any, dict[str, Any]]]]  # keys and examples


class Archive(NamedTuple):
  """A file on the network and what identifies it."""

  url: str
  size: int  # in bytes
  sha256: str

  @property
  def filename(self) -> str:
    """The last part of the URL's path."""
    return self.url.split('?')[0].rsplit('/', 1)[-1]


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS builder whose `archives` may be files fetched by hand, by SHA-256.

  A builder's docstring begins with the description of its set.
  Builders aren't registered with TFDS, whose own ones may have the same name.
  """

  ARCHIVES: tuple[Archive, ...] = ()
  SHAPE: tuple[int | None, ...] = (None, None, 3)  # of an image
  CLASSES: int
  HOMEPAGE: str

  def __init__(
    self, *, archives: Mapping[str, pathlib.Path] | None = None, **kwargs: Any
  ):
    self._archives = dict(archives or {})
    super().__init__(**kwargs)

  def _features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {
      'image': tfds.features.Image(shape=self.SHAPE),
      'label': tfds.features.ClassLabel(num_classes=self.CLASSES),
    }

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__.splitlines()[0],
      features=tfds.features.FeaturesDict(self._features()),
      supervised_keys=('image', 'label'),
      homepage=self.HOMEPAGE,
    )

  @property
  def url_infos(self) -> dict[str, checksums.UrlInfo]:
    """The checksums that TFDS's download manager verifies."""
    return {
      item.url: checksums.UrlInfo(item.size, item.sha256, item.filename)
      for item in self.ARCHIVES
    }

  def fetch(self, archive: Archive, dl_manager: Downloads) -> pathlib.Path:
    """Returns the archive: by hand, from TFDS's cache or from the network."""
    if archive.sha256 in self._archives:
      return self._archives[archive.sha256]
    cached = resource.get_dl_fname(archive.url, archive.sha256)
    if not (dl_manager.download_dir / self.name / cached).exists():
      _check_reachable(archive.url)
    return pathlib.Path(dl_manager.download(archive.url))

  def _generate_examples(
    self, path: pathlib.Path, folder: str, labels: Mapping[str, int | str]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the images of `labels`, which has their names in `folder`/."""
    missing = {folder + name: label for name, label in labels.items()}
    for name, content in tar_files(path, lambda name: name in missing):
      yield name, {'image': content, 'label': missing.pop(name)}
    if missing:
      lost = f'{len(missing)} of its {len(labels)} images are missing'
      raise InputError(f'{path}: the archive has no {min(missing)}; {lost}')


def tar_files(
  path: pathlib.Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
  """Streams the files whose full names, without a leading ./, are wanted."""
  try:
    with tarfile.open(path) as tar:
      for member in tar:
        name = posixpath.normpath(member.name)
        if member.isfile() and wanted(name):
          yield name, tar.extractfile(member).read()
  except (tarfile.TarError, EOFError, zlib.error) as error:
    raise InputError(f'{path}: not a whole tar archive: {error}') from error


def read_members(
  path: pathlib.Path, names: Collection[str]
) -> dict[str, bytes]:
  """The contents of files of a tar archive, by their full names."""
  found = dict(tar_files(path, lambda name: name in names))
  if missing := sorted(set(names) - found.keys()):
    raise InputError(f'{path}: the archive has no {", ".join(missing)}')
  return found


def png(image: np.ndarray) -> bytes:
  """Encodes `u8[H, W]` or `u8[H, W, 3]`: TFDS would need TensorFlow for it."""
  Image.fromarray(image).save(buffer := io.BytesIO(), format='PNG')
  return buffer.getvalue()


def _check_reachable(url: str) -> None:
  # TFDS's downloader has no timeout and tries again for minutes. A thread,
  # because no timeout of `requests` covers the name look-up.
  failure: list[OSError] = [TimeoutError(f'no answer within {_PATIENCE} s')]

  def ask() -> None:
    try:
      with requests.get(url, stream=True, timeout=_PATIENCE) as response:
        response.raise_for_status()
      failure.clear()
    except OSError as error:
      failure[:] = [error]

  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(_PATIENCE)
  if failure:
    raise failure[0]
