"""How cold an engine can sample. Nothing heavy is imported: vLLM's server reads this in a Python without pydantic."""

TORCH_COLDEST = 1e-4  # far below, logits divided by the temperature overflow
VLLM_COLDEST = 0.01  # vLLM samples at no temperature between 0 and it, whatever it is told
