"""Numbers that no setting changes and that several rooms count on: each is written here, and imported.

Planning loads no torch, and vLLM's server runs where what vcppo requires may be missing: this module needs nothing.
"""

from typing import Final

SLACK_LINES: Final = 4  # a response to the embedded task may be this much longer than the right one before it is cut

RESPONSES_AT_ONCE: Final = 256  # sampled together by the stages that sample for later ones
PAIRED_PROMPTS_AT_ONCE: Final = 16  # the reward model's, with all their responses
PROBLEMS_OF_A_SEED: Final = 32  # of an evaluation: their responses share a seed and differ by their numbers
DEMONSTRATIONS_AT_ONCE: Final = 16  # drawn until they have an update's tokens

# Of the torch generator.
GENERATOR_ROWS: Final = 512  # responses written together: with 1024 hardly more tokens a second, and twice the memory
COMPACT_BELOW: Final = 0.75  # the batch is compacted when fewer than this share of its rows are still being written
CACHE_GROWTH: Final = 64  # columns the cache starts with beyond the prompt; it doubles when full

# Of a GPU's memory, weights included, that vLLM may take unless engine.memory_share says so.
VLLM_SHARE: Final = {"colocated": 0.4, "server": 0.85}

# Temperatures below which an engine does not sample.
TORCH_COLDEST: Final = 1e-4  # far below, logits divided by the temperature overflow
VLLM_COLDEST: Final = 0.01  # vLLM samples at no temperature between 0 and it, whatever it is told

# Of a task, where neither a setting nor the task says them; what is estimated before a run is estimated with them.
PROMPT_TOKENS: Final = 512  # of a problem with its template and instruction
WRITTEN_LINES: Final = 30  # of a worked response, where no setting bounds the states that continuations start from

# Columns of runs.csv and parts of metrics' names (`cost/answers`): what a run has spent.
COUNTED_COSTS: Final = ("answers", "generated_tokens", "forward_tokens", "backward_tokens", "compute_tokens")
BACKWARD: Final = 3  # a forward and a backward pass cost about three forward passes

STEPS_BETWEEN_STATES: Final = 50  # updates of the cold start and of the reward model, after which a state is saved

# Of processes that a run starts beside itself.
PROCESS_START_S: Final = 120.0  # to import what they need, on a busy machine
GOODBYE_S: Final = 5.0  # to end by themselves
FAILED_STARTS: Final = 3  # of one in a row: then something is wrong with all

# Of a running cell that writes nothing: the tokens that it goes through are written every other second, so that only
# loading, compiling or saving a large model, or generating much at once, is silent for minutes. Then the user is told.
SILENT_CELL_S: Final = 600.0

# Of MLflow and of Optuna's storage.
SILENT_S: Final = 30.0  # without a reply, after which the user is told
FIRST_RETRY_S: Final = 1.0  # until what failed is tried again; twice as long after each failure
LONGEST_RETRY_S: Final = 30.0

# Of a diagnosis, whose plan counts on them too.
GRADIENT_CHUNKS: Final = 64  # groups of responses that share no prompt; intervals are over them
FEWEST_PROMPTS: Final = 8  # for groups that share none; of fewer, responses are divided
GRADIENT_BYTES: Final = 2 * 2**30  # for gradients of all groups in each process; those that do not fit are sketched
GRADIENT_RESAMPLES: Final = 2000  # of the chunks, for an interval
PRODUCT_COLUMNS: Final = 2**16  # of gradients that are multiplied at once, in float64

# Of measuring where the policy gradient points while a run trains.
ALIGNMENT_CHUNKS: Final = 8  # groups of an iteration's responses: 16 tell no more, and cost a third more
ALIGNMENT_MEMORY: Final = 2**30  # bytes of main memory for their gradients in each process; more are sketched
