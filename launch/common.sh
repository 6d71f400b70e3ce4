# Shared by the launchers: flags, checks, and commands that a dry run prints.
# shellcheck shell=bash

dry_run=false
workdir=''
program=() # what follows --: the arguments of python -m smft_jax.train

fail() {
  echo "error: $*" >&2
  exit 2
}

# read_flags "NAME ..." ARGUMENT...: sets a variable for each --NAME=VALUE. The
# variables exist already, empty if the flag is required.
read_flags() {
  local known=$1 flag
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift && program=("$@") && break ;;
      --dry-run) dry_run=true ;;
      --*=*)
        flag=${1%%=*}
        flag=${flag#--}
        [[ " $known " == *" $flag "* ]] ||
          fail "unknown flag --$flag; known are --${known// / --} --dry-run"
        printf -v "$flag" '%s' "${1#*=}"
        ;;
      *) fail "$1 is not a flag: flags are --NAME=VALUE, the program's own" \
        "come after --" ;;
    esac
    shift
  done
}

# need NAME...: fails unless these flags have a value.
need() {
  local flag
  for flag in "$@"; do
    [ -n "${!flag}" ] || fail "--$flag=... is missing"
  done
}

# check_program [MOUNT]: checks that the shared folders can be the same for all
# processes; below MOUNT, if nothing else is shared. Sets the variable workdir.
check_program() {
  local argument flag value mount=${1:-}
  for flag in --config --workdir --config.base.cache_dir; do
    value=
    # An empty array is an unbound variable to the bash of macOS, 3.2.
    for argument in ${program[@]+"${program[@]}"}; do
      [[ $argument == "$flag="* ]] && value=${argument#*=}
    done
    [ -n "$value" ] || fail "after --, $flag=... is missing"
    [ "$flag" = --config ] || case $value in
      gs://* | s3://*) fail "$flag=$value is not a folder; mount the bucket on" \
        "all hosts and name the mount" ;;
      /tmp/* | /var/tmp/* | /dev/shm/*) fail "$flag=$value is a folder of one" \
        "host; name one that all hosts mount at the same place" ;;
      "$mount"/*) ;;
      /*) fail "$flag=$value is not below $mount, which all hosts mount" ;;
      *) fail "$flag=$value is not absolute; name a folder that all hosts" \
        "mount at the same place" ;;
    esac
    [ "$flag" != --workdir ] || workdir=$value
  done
}

# run COMMAND...: runs it; a dry run prints it, with any document on standard
# input below.
run() {
  if ! $dry_run; then
    "$@"
    return
  fi
  printf '%q ' "$@" && echo
  [ -t 0 ] || sed 's/^/  | /'
}
