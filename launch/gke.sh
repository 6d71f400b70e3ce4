#!/usr/bin/env bash
# Submits the program to GKE as a JobSet: one pod for each host of a TPU slice.
#
#   launch/gke.sh --name=smft --image=IMAGE --accelerator=tpu-v5-lite-podslice \
#       --topology=16x16 --hosts=64 --chips=4 --claim=PVC -- \
#       --config=configs/docqa.py --workdir=/shared/run \
#       --config.base.cache_dir=/shared/cache --config.mesh.data=256
#
# IMAGE is built with launch/Dockerfile; PVC is a claim that all pods may write,
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
  [[ ${!number} =~ ^[0-9]+$ ]] || fail "--$number=${!number} is no number"
done
check_program

quote() { # a string of JSON, which YAML reads too
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

arguments=''
for argument in "${program[@]}"; do
  arguments+=", $(quote "$argument")"
done

# A mistake in the command (exit code 2) ends all; anything else starts again,
# and resumes. python is the first process of its container: SIGTERM reaches it.
run kubectl apply -f - <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
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
              cloud.google.com/gke-tpu-accelerator: $accelerator
              cloud.google.com/gke-tpu-topology: $topology
            containers:
            - name: train
              image: $(quote "$image")
              command: ["python", "-m", "smft_jax.train"$arguments]
              resources:
                limits:
                  google.com/tpu: $chips
              volumeMounts:
              - name: shared
                mountPath: /shared
            volumes:
            - name: shared
              persistentVolumeClaim:
                claimName: $claim
END
