#!/usr/bin/env bash
# Runs the program on all workers of a TPU VM pod, with gcloud.
#
#   launch/tpu_vm.sh setup --name=POD --zone=ZONE        install this commit, by
#       --python=python3
#   launch/tpu_vm.sh start --name=POD --zone=ZONE -- --config=configs/docqa.py \
#       --workdir=/mnt/shared/run --config.base.cache_dir=/mnt/shared/cache ...
#   launch/tpu_vm.sh logs  --name=POD --zone=ZONE        the last lines of each
#   launch/tpu_vm.sh stop  --name=POD --zone=ZONE        save, and end
#
# --dry-run only prints the commands. You create and delete the pod; see
# launch/README.md.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

actions='setup start logs stop'
action=${1:-}
[[ -n $action && " $actions " == *" $action "* ]] ||
  fail "'$action' is not an action; known are $actions"
shift
name='' zone='' project='' python='python3'
read_flags 'name zone project python' "$@"
need name zone

tpu() { # tpu VERB ARGUMENT...
  local verb=$1 where=("--zone=$zone" --worker=all)
  shift
  [ -z "$project" ] || where+=("--project=$project")
  run gcloud compute tpus tpu-vm "$verb" "$@" "${where[@]}" </dev/null
}

on_all() { tpu ssh "$name" "--command=$1"; }

# nohup, so that it outlives the connection, becomes python: the process to stop.
# A second one would overwrite smft_jax.pid, and never get the TPU.
start() {
  local arguments
  check_program
  arguments=$(printf ' %q' "${program[@]}")
  on_all "cd smft_jax || exit 1
if { kill -0 \"\$(cat smft_jax.pid)\"; } 2>/dev/null; then
  echo \"error: already running on \$(hostname); stop it first\" >&2; exit 1
fi
nohup .venv/bin/python -m smft_jax.train$arguments >>smft_jax.log 2>&1 </dev/null & echo \$! >smft_jax.pid"
}

case $action in
  setup)
    archive=smft_jax.tar.gz
    run git -C "$here/.." archive --prefix=smft_jax/ -o "$archive" HEAD \
      </dev/null
    tpu scp "$here/../$archive" "$name:"
    on_all "tar xzf $archive && cd smft_jax && $(printf %q "$python") -m venv .venv &&\
 .venv/bin/pip install -q '.[tpu]'"
    ;;
  start) start ;;
  logs) on_all 'tail -n 20 smft_jax/smft_jax.log' ;;
  stop) on_all "kill -TERM \"\$(cat smft_jax/smft_jax.pid)\"" ;;
esac
