#!/bin/sh
# Install the peers that the benchmarks measure beside us, each in an environment of its own: benchmarks/peers.sh [FOLDER]
#
# OpenNMT-py 3.5.1 asks for torch below 2.3. It runs on the version that we use, with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, which
# benchmarks/opennmt.py sets: so it gets the same torch as we, and its own needs without that bound.
#
# JoeyNMT 2.3.0 doesn't say that it needs importlib_metadata, asks for a protobuf of 2022, and gives a scheduler an argument that
# torch no longer has (`verbose`): so it gets what its training imports, and that one line is deleted where it is installed.
set -eu
cd "$(dirname "$0")/.."
peers=${1:-peers}
python=${PYTHON:-python3}

# environment NAME PACKAGE...: make it and install
environment() {
    name=$1
    shift
    $python -m venv "$peers/$name"
    "$peers/$name/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 "$@"
}

environment opennmt configargparse ctranslate2 fasttext-wheel flask pyahocorasick pyonmttok pyyaml rapidfuzz sacrebleu six spacy \
    tensorboard waitress
"$peers/opennmt/bin/pip" install --quiet --disable-pip-version-check --no-deps OpenNMT-py==3.5.1
"$peers/opennmt/bin/onmt_train" --help > /dev/null
echo "$peers/opennmt: OpenNMT-py 3.5.1 is ready"

environment joeynmt importlib_metadata matplotlib numpy packaging pyyaml sacrebleu sacremoses sentencepiece subword-nmt \
    tensorboard tqdm
"$peers/joeynmt/bin/pip" install --quiet --disable-pip-version-check --no-deps joeynmt==2.3.0
sed -i '/^ *"verbose": False,$/d' "$peers"/joeynmt/lib/python3*/site-packages/joeynmt/builders.py
"$peers/joeynmt/bin/python" -m joeynmt --help > /dev/null
echo "$peers/joeynmt: JoeyNMT 2.3.0 is ready"
