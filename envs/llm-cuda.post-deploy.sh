# As posgen.post-deploy.sh, after what builds against this torch and this toolkit. FlashAttention takes an hour or
# more of all cores and is only of use from Ampere on: RESONANCE_FLASH_ATTENTION=0 leaves it out, and SDPA runs; so it
# does where the build fails, which costs no environment. FLASH_ATTN_CUDA_ARCHS: which GPUs it is built for.
set -eu
install="python -m pip install --quiet --no-build-isolation --no-deps"
export CUDA_HOME="$CONDA_PREFIX" CUDA_INC_PATH="$CONDA_PREFIX/targets/x86_64-linux/include"  # where conda's headers are
export FLASH_ATTN_CUDA_ARCHS="${FLASH_ATTN_CUDA_ARCHS:-80;90}"
$install --constraint constraints.txt deepspeed
if [ "${RESONANCE_FLASH_ATTENTION:-1}" != 0 ]; then
  $install --constraint constraints.txt flash-attn \
    || echo "flash-attn did not install: attention runs as SDPA of torch" >&2
fi
$install --editable .
op=$(python -c 'from resonance.encoding.ops import implementation; print(implementation())')
if [ "$op" = "torch reference" ] && [ "${RESONANCE_EXTENSION:-1}" != 0 ]; then
  echo "error: the compiled op must be built in a conda environment, but was not: see above; RESONANCE_EXTENSION=0 does without" >&2
  exit 2
fi
