#!/usr/bin/env bash
# Submits a table to Slurm: one job array a stage, each after the one before.
#
#   bash configs/sweeps/slurm.sh --table=configs/sweeps/cifar100.py \
#     --workdir=/scratch/$USER/cifar100 --seeds=5
#
# It needs Slurm's sbatch, so run it where jobs are submitted. Edit
# slurm.sbatch first. Submit again for what failed or ran out of time:
# finished runs end at once. The same command without slurm.sh, as
# `python -m tsla sweep …`, then writes the report.
set -euo pipefail
if ! command -v sbatch >/dev/null; then
  echo "slurm.sh: there is no sbatch here, which comes with Slurm" >&2
  echo "  next: run it where jobs are submitted, or without Slurm" >&2
  echo "        python -m tsla sweep $*" >&2
  exit 2
fi
here=$(dirname "$0")
list=$(python -m tsla sweep "$@" --list)
after=
for ((stage = 0; ; stage++)); do
  runs=$(sed -n "s/.* --only=\([0-9]*\)  # stage $stage: .*/\1/p" <<<"$list" |
    paste -sd,)
  [ -n "$runs" ] || break
  after=$(sbatch --parsable --array="$runs" \
    ${after:+--dependency=afterany:$after} "$here/slurm.sbatch" "$@")
  echo "stage $stage: job $after, runs $runs"
done
