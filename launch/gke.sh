#!/usr/bin/env bash
# Submits the program to GKE as a JobSet: one pod for each host of a TPU slice.
#
#   launch/gke.sh --name=smft --image=IMAGE --accelerator=tpu-v5-lite-podslice \
#       --topology=16x16 --hosts=64 --chips=4 --claim=PVC -- \
#       --config=configs/docqa.py --workdir=/shared/run \
#       --config.base.cache_dir=/shared/cache --config.mesh.data=256
#
# IMAGE is built with launch/Dockerfile; PVC is a claim that all pods can write,
# mounted at /shared. --dry-run prints the manifest. See launch/README.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' image='' accelerator='' topology='' hosts='' chips='4' claim=''
restarts='20' grace_s='300'
read_flags 'name image accelerator topology hosts chips claim restarts grace_s' \
  "$@"
need name image accelerator topology hosts claim
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  fail "--name=$name: Kubernetes takes lower-case letters, digits and -"
for number in hosts chips restarts grace_s; do
  [[ ${!number} =~ ^[0-9]+$ ]] || fail "--$number=${!number} is not a number"
done
check_program /shared

quote() { # a string of JSON, which YAML reads too
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//$'\n'/\\n}"
}

arguments=$(quote "$workdir")
for argument in "${program[@]}"; do
  # Kubernetes would replace \$(NAME) by a variable.
  arguments+=", $(quote "${argument//\$(/\$\$(}")"
done

# Exit code 2, a mistake, ends all; anything else restarts and resumes. create,
# because apply would leave an ended job set unchanged.
run kubectl create -f - <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    # All pods on one slice, if there are several of this topology.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
    - action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        completions: $hosts
        parallelism: $hosts
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: train
              operator: In
              values: [2]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: $grace_s
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $(quote "$accelerator")
              cloud.google.com/gke-tpu-topology: $(quote "$topology")
            containers:
            - name: train
              image: $(quote "$image")
              command:
              - bash
              - -c
              # Kubernetes counts a pod that exits with 0 as done, even one that
              # it moved and that saved. Pod 0 tells it that there is more to do.
              - |
                trap 'kill -TERM \$!' TERM
                python -m smft_jax.train "\$@" &
                # wait alone can miss a signal that arrives as it begins.
                while kill -0 \$! 2>/dev/null; do sleep 0.2; done
                wait \$! && code=0 || code=\$?
                [ "\$code" != 0 ] || [ "\$JOB_COMPLETION_INDEX" != 0 ] ||
                  [ -e "\$0/results.json" ] || code=143
                exit "\$code"
              args: [$arguments]
              resources:
                limits:
                  google.com/tpu: $chips
              volumeMounts:
              - name: shared
                mountPath: /shared
            volumes:
            - name: shared
              persistentVolumeClaim:
                claimName: $(quote "$claim")
END
