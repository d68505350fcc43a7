# Snakemake runs this in the new environment, from the repository's root. Editable, since rules run the code
# that stands here and never a copy of some day ago; without isolation the build sees this environment's torch.
set -eu
python -m pip install --quiet --no-build-isolation --no-deps --editable .
op=$(python -c 'from resonance.encoding.ops import implementation; print(implementation())')
if [ "$op" = "torch reference" ] && [ "${RESONANCE_EXTENSION:-1}" != 0 ]; then
  echo "error: the compiled op must be built in a conda environment, but was not: see above; RESONANCE_EXTENSION=0 does without" >&2
  exit 2
fi
