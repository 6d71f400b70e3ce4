"""A small TFDS folder like the real one, written without TensorFlow."""

import random

from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds

SQUAD = {
  'id': tfds.features.Scalar(np.object_),
  'title': tfds.features.Text(),
  'context': tfds.features.Text(),
  'question': tfds.features.Text(),
  'answers': tfds.features.Sequence(
    {
      'text': tfds.features.Text(),
      'answer_start': tfds.features.Scalar(np.int32),
    }
  ),
}
TEXT = {'title': tfds.features.Text(), 'text': tfds.features.Text()}


def write(root, name, splits, features, version='1.0.0'):
  """Writes a data set in array_record format; returns its folder."""
  folder = root / name / version
  folder.mkdir(parents=True)
  features = tfds.features.FeaturesDict(features)
  infos = []
  short = name.split('/')[0]
  for split, examples in splits.items():
    file = folder / f'{short}-{split}.array_record-00000-of-00001'
    writer = array_record_module.ArrayRecordWriter(str(file), 'group_size:1')
    for example in examples:
      writer.write(features.serialize_example(example))
    writer.close()
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(examples)],
        num_bytes=file.stat().st_size,
        filename_template=tfds.core.ShardedFileTemplate(
          dataset_name=short,
          split=split,
          filetype_suffix='array_record',
          data_dir=folder,
        ),
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=infos, check_data=False
  )
  return folder


def squad_examples(titles, paragraphs, *, shuffle_seed):
  """Two questions a paragraph; ids tell the order of the paragraphs."""
  examples = []
  for title in titles:
    for place in range(paragraphs):
      name = f'{title} {place}'
      for q in range(2):
        examples.append(
          {
            'id': f'{place:02d}{q}-{title}',
            'title': title,
            'context': (
              f'{name} opened in 19{place:02d}. It faces the sea. Many visit'
              f' it. {name} is loved! Café and park lie near.'
            ),
            'question': f' Question {q} on {name}? ',
            'answers': {
              'text': [f'19{place:02d}', f'19{place:02d}', 'sea'],
              'answer_start': [3, 3, 9],
            },
          }
        )
  random.Random(shuffle_seed).shuffle(examples)
  return examples


STREAM_TITLES = ('Rhine_%C3%89tude', 'Abbey', 'Museum')


def make_folder(root, shuffle_seed=0):
  articles = [
    {
      'title': f'A{i}',
      'text': f' \n = A{i} = \n \n The <unk> of {i} @-@ ends . ',
    }
    for i in range(5)
  ]
  write(root, 'wikitext2', {'train': articles, 'test': articles[:2]}, TEXT)
  known = squad_examples(('Old', 'Older'), 5, shuffle_seed=shuffle_seed)
  write(root, 'squad_train44', {'train': known}, SQUAD)
  new = squad_examples(STREAM_TITLES, 7, shuffle_seed=shuffle_seed)
  write(root, 'squad/v1.1', {'validation': new}, SQUAD, version='3.0.0')
