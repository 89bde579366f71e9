#!/usr/bin/env bash
# Stop the test cluster: exactly the daemons that up.sh started, by their pid files.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

stop() { # pid file without .pid, name
  local pid
  if pid=$(pid_of "$1" "$2"); then
    kill -TERM "$pid"
    for _ in $(seq 300); do runs "$pid" "$2" || break; sleep 0.05; done
    if runs "$pid" "$2"; then
      echo "slurm: $1 ($pid) did not end in 15 s: killed" >&2
      kill -KILL "$pid"
    fi
  fi
  rm -f "$STATE/run/$1.pid"
}

# A job's slurmstepd outlives its slurmd, so the jobs end first.
if pid_of slurmctld slurmctld > /dev/null; then
  timeout 10 squeue -h -o %A 2> /dev/null | sort -u | timeout 10 xargs -r scancel 2> /dev/null
  for _ in $(seq 100); do [ -n "$(timeout 5 squeue -h 2> /dev/null)" ] || break; sleep 0.1; done
fi
for node in "${NODES[@]}"; do stop "slurmd.$node" slurmd & done
wait
stop slurmctld slurmctld
stop slurmdbd slurmdbd
stop mariadbd mariadbd
stop munged munged
[ "$(readlink "$DEFAULT_CONF")" != "$SLURM_CONF" ] || rm -f "$DEFAULT_CONF"
echo "slurm: down"
