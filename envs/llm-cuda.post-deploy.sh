# As posgen.post-deploy.sh, after what builds against this torch and this toolkit. FlashAttention takes an hour or
# more of all cores and is only of use from Ampere on: RESONANCE_FLASH_ATTENTION=0 leaves it out, and SDPA runs.
set -eu
install="python -m pip install --quiet --no-build-isolation --no-deps"
export CUDA_HOME="$CONDA_PREFIX"
$install --constraint constraints.txt deepspeed
if [ "${RESONANCE_FLASH_ATTENTION:-1}" != 0 ]; then
  $install --constraint constraints.txt flash-attn
fi
$install --editable .
op=$(python -c 'from resonance.encoding.ops import implementation; print(implementation())')
if [ "$op" = "torch reference" ] && [ "${RESONANCE_EXTENSION:-1}" != 0 ]; then
  echo "error: the compiled op must be built in a conda environment, but was not: see above; RESONANCE_EXTENSION=0 does without" >&2
  exit 2
fi
