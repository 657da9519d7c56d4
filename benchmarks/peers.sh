#!/bin/sh
# Install the peers that the benchmarks measure beside us, each in an environment of its own: benchmarks/peers.sh [FOLDER]
#
# OpenNMT-py 3.5.1 asks for torch below 2.3. It runs on the version that we use, with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, which
# benchmarks/opennmt.py sets: so it gets the same torch as we, and its own needs without that bound.
set -eu
cd "$(dirname "$0")/.."
peers=${1:-peers}
python=${PYTHON:-python3}

$python -m venv "$peers/opennmt"
"$peers/opennmt/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt \
    torch==2.13.0 configargparse ctranslate2 fasttext-wheel flask pyahocorasick pyonmttok pyyaml rapidfuzz sacrebleu six spacy \
    tensorboard waitress
"$peers/opennmt/bin/pip" install --quiet --disable-pip-version-check --no-deps OpenNMT-py==3.5.1
"$peers/opennmt/bin/onmt_train" --help > /dev/null
echo "$peers/opennmt: OpenNMT-py 3.5.1 is ready"
