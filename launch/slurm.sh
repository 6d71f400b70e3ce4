#!/usr/bin/env bash
# Submits the program to SLURM: one process on each node, with all its GPUs.
#
#   launch/slurm.sh --nodes=2 --gpus=8 --time=24:00:00 -- \
#       --config=configs/docqa.py --workdir=/shared/run \
#       --config.base.cache_dir=/shared/cache --config.mesh.data=16
#
# Run it in the repository, with the environment active. --dry-run
# prints the batch script. See launch/README.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes='' gpus='' time='24:00:00' partition='' account='' cpus=''
read_flags 'nodes gpus time partition account cpus' "$@"
need nodes gpus
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "--nodes=$nodes is not a number of nodes"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || fail "--gpus=$gpus is not a number of GPUs"
check_program

options=''
[ -z "$partition" ] || options+="#SBATCH --partition=$partition"$'\n'
[ -z "$account" ] || options+="#SBATCH --account=$account"$'\n'
[ -z "$cpus" ] || options+="#SBATCH --cpus-per-task=$cpus"$'\n'
# Since SLURM 22.05 srun does not take them from sbatch.
[ -z "$cpus" ] || cpus="export SRUN_CPUS_PER_TASK=$cpus"$'\n'

run sbatch <<END
#!/usr/bin/env bash
#SBATCH --job-name=smft_jax
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
#SBATCH --output=smft_jax-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
${options}set -euo pipefail
# Otherwise JAX takes one GPU per task.
export JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((gpus - 1)))
${cpus}srun --kill-on-bad-exit=1 --label $(printf '%q ' \
  python -m smft_jax.train "${program[@]}")
# Saved before the time limit: the next job continues.
[ -e $(printf '%q' "$workdir/results.json") ] || scontrol requeue "\$SLURM_JOB_ID"
END
