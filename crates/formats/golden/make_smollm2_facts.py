"""What transformers makes of the SmolLM2 GGUF: a checksum of every tensor (as bfloat16) and the configuration.

    python make_smollm2_facts.py HF_DIR     # writes ../tests/fixtures/smollm2_tensors.txt, smollm2_config.json

HF_DIR is the directory that the peers' make_smollm2.py writes (transformers dequantises the GGUF, un-permutes q and k,
and rounds to bfloat16). A line is "<name> <shape> <first 16 digits of the SHA-256 of the bf16 bytes>".
"""
import hashlib, json, sys
from pathlib import Path

from safetensors import safe_open
import torch

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "tests" / "fixtures"
source = Path(sys.argv[1])
with safe_open(source / "model.safetensors", "pt") as file, open(FIXTURES / "smollm2_tensors.txt", "w") as out:
    for name in sorted(file.keys()):
        tensor = file.get_tensor(name)
        assert tensor.dtype == torch.bfloat16
        digest = hashlib.sha256(tensor.contiguous().view(torch.int16).numpy().tobytes()).hexdigest()[:16]
        print(name, "x".join(map(str, tensor.shape)), digest, file=out)
config = json.loads((source / "config.json").read_text())
for key in ["_model_name_or_path", "transformers_version", "dtype"]:  # not facts about the model
    config.pop(key, None)
(FIXTURES / "smollm2_config.json").write_text(json.dumps(config, indent=1) + "\n")
