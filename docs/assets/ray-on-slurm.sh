#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=32 --time=04:00:00
# One run over all machines of a Slurm job: `sbatch ray-on-slurm.sh experiment=card data_dir=/shared/data`.
# Submitted again, it goes on where a time limit ended it.
set -euo pipefail
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export ADDRESS=${hosts%%$'\n'*}:${RAY_PORT:-6379} RAY_USAGE_STATS_ENABLED=0
# Ray on every machine: the first is its head, the others look for it until it is there.
srun bash -c '
    if [ "$SLURM_NODEID" = 0 ]; then exec ray start --block --head --port="${ADDRESS##*:}" --include-dashboard=false; fi
    until ray start --block --address="$ADDRESS"; do sleep 5; done' >"ray-$SLURM_JOB_ID.log" 2>&1 &
trap 'kill $! 2>/dev/null || true' EXIT
for _ in $(seq 60); do
    if said=$(ray status --address "$ADDRESS" 2>&1); then break; fi
    kill -0 $! || { echo "Ray did not start: see ray-$SLURM_JOB_ID.log" >&2; exit 1; }
    sleep 2
done
ray status --address "$ADDRESS" >/dev/null 2>&1 || { echo "Ray does not answer: ${said##*$'\n'}" >&2; exit 1; }
evalkit workers=auto ray.address="$ADDRESS" "$@"
