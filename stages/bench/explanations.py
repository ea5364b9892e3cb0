"""What the rows of the benchmark measure and how to read them: the prose between the tables of metrics/bench.md."""

INTRODUCTION = """`python -m stages.bench` writes this file, and beside it a JSON file with every repeat. *Ours* is
this project. *Theirs* is what a user would otherwise run on the same model and the same pairs: `Trainer` of
transformers, prompt tuning by PEFT, or `generate`. The contenders take turns, so a machine that slows down slows all
of them. A figure is the median of the repeats, with the lowest and the highest in brackets. A ratio is that of two
medians; its brackets hold the lowest and the highest ratio within one repeat. An *aim* is what we wanted to reach. On a
GPU each side also has the most memory that its tensors took beside those that were there before: the weights that
`Trainer` trains were there, those that ours trains were not."""

TRAINING = """Both sides train the same parameters of the same method on the same pairs, in batches of 8 (App. B). Ours
puts pairs of similar length into one batch, so that it pads little; `Trainer` gets them shuffled, as it would by
default. PEFT's prompt tuning trains the prompt alone, so there the word embeddings stay frozen on both sides; its
prompt has as many tokens as a query has on average, so that its rows are as long as ours."""

SWEEP = """The trials of the prompted methods share passes through the frozen layers. A pair counts as done when every
trial has trained on it. Without shared passes the trials run one after another: the other side's rate is that of one
run in the section above, divided by the number of trials. Fine-tuning shares no layers, so it has no line here. On a
CPU a pass has a number of tokens at most (`stages/train/trials_per_pass.py`), so that trials whose rows are long go one
after another, or in parts. *12 together* are twelve trials trained in one run, in as many passes as that takes."""

DECODING = """Both sides decode the same queries with the same weights, in float32. `generate` gets the fastest of
several batch sizes, once with the queries in the order of the data and once sorted by length. Ours sorts them itself,
and a row that has ended leaves the batch; that gains little where few responses end early. "Differ" counts the
responses that are not the same token for token."""

PRODUCTS = """How much of a step, or of decoding, is matrix products. The *floor* is the time that these products would
take at the speed of one large product; "products / floor" says how many times as long the profiler saw them take.
*Products* is their share of the time of all operators in a profiled step; *measured* is another step, without the
profiler. The rest of the time goes to small operations between the products (normalisation, rotary positions, attention
over short rows) and to calling each of them. On a CPU only a compiler could join those, and `torch.compile` asks every
user for a C++ compiler, so it is not used. How fast a processor multiplies changes the ratios of rows a and c too,
since the other side spends more of its time elsewhere. On 22 November, with the code of that day, on two cores of an
AMD EPYC whose large products ran at 825 GFLOP/s in bfloat16 and 394 in float32, row a had 2.0x for fine-tune, 2.6x for
soft and 2.2x for dynamic, and row c 3.0x and 2.6x for zero-shot. (The answers of dynamic were shorter then, so those
ratios cannot be compared.) The table has the speeds of this run."""

GROWTH = """One step of training, on the same batch again and again. A step costs the same however many pairs there
are, so the time of an epoch is calculated from it; validation is not part of it. The models of the last table have
random weights."""

ENGINES = """`runtime.engine: local` trains units one after another in one process, `ray` hands them to a Ray cluster,
here one on this machine. First a real training: eight units of LoRA, eight pairs for training and two for validation,
one CPU thread a unit. Libraries are loaded and Ray is up before the clock starts; what counts is that inputs travel,
that processes of Ray start and load libraries and model, and that results come back. The ideal is the time of `local`
divided by the slots. Then units that only sleep, three for each slot, which shows how well Ray keeps slots filled: up
to eight slots are processes of Ray, as on a machine with eight GPUs, more are threads of such processes, because one
machine has no room for 512. Last, units that wait: how long it takes to hand them to Ray, how long one look at all of
them takes, and the memory of the process that did it and of the two servers of Ray's head."""

SCALE = """The stages that handle pairs, on synthetic corpora of growing size: turns as long as DailyDialog's, of
words that are as unequally frequent as those of a language. Every 20th training dialogue begins with a copy of a pair
of validation or test, in capitals; subset has to drop all of these. Each stage runs in a process of its own. Where
other work runs on the machine, the time of the CPU, in brackets, says more. *Batching* is what train does with the
pairs before a model sees them: it reads and encodes them, and pads all batches of an epoch. Most of the memory of the
small sizes is Python's libraries. What score takes with few pairs goes into the bootstrap and the scores of the test
pairs, which do not grow."""

MEMORY = """Not a row of the benchmark: the memory of the stage train in the default run (three trials of `dynamic`),
which `metrics/cost/train.json` of that run says. On two cores of an AMD EPYC with AVX-512, where it trains in bfloat16,
it was 4.9 GiB, in the runs of the table below 4.8; the aim was 5 GiB. Calculated: weights and two moments of three
trials 1.2 GiB, the base model 0.7 GiB, packed for bfloat16 in both orders and as it is. Measured between two steps: 2.3
GiB in use, 0.3 GiB of mapped files, 0.2 GiB of Python's libraries besides. The float32 weights, for decoding, are a
mapped file and leave memory until then (`page_out` in `stages/language_model/device.py`: 0.5 GiB less). A pass takes up
to 1.4 GiB more, and what it frees stays with the process up to 1.75 GiB, since the kernel clears what was given back:
nine steps took 22.3 s with a limit of 1.5 GiB, with which most steps gave memory back, 19.7 s with 1.75, and 19.2 s
without one (passes of 1280 tokens). In validation 0.75 GiB may stay; without that limit a run grew to 5.2 GiB in
validation."""

MEMORY_BEFORE = """Before and after the work on memory, in turns, three rounds, whole processes by `python
stages/bench/alone.py OUT COMMAND...`. All but zero-shot: one epoch, three rates from 3e-5 to 3e-4, `embeddings_rate:
1`, rows of query, end-of-text, response, end-of-text. In bfloat16: two cores of an AMD EPYC with AVX-512, commits
3abe7cb and 53eed29. *Default run*: its own 434, 128 and 200 pairs, `dynamic`, one stage after another (`dvc repro
--no-run-cache -f -s STAGE`). The other lines: the stage train with 113 pairs for training and 64 for validation. So
that both do the same work, `dynamic` started from the same weights in both, and 3abe7cb was measured with one defect
repaired: it had not trained the word embedding of end-of-text. The losses in training then agree to seven digits, and
all 200 answers are the same. Only `soft` started from other random numbers. In float32: two cores of an AMD EPYC
without AVX-512, the stage train with 98 pairs and 64 (ChitChat, `messages: joined`); the later commit is 7458be3 for
`dynamic` and `fine-tune`, 6eb889c for the other two."""
MEMORY_TABLE = (
    ("", "before, s", "after, s", "before, GiB", "after, GiB"),
    ("default run, bfloat16", "201, 203, 198", "218, 231, 225", "7.7, 7.6, 7.3", "4.8, 4.8, 4.8"),
    ("its stage train", "175, 177, 174", "175, 182, 180", "7.7, 7.6, 7.3", "4.8, 4.8, 4.8"),
    ("its stage greedy-generate", "23, 24, 22", "40, 46, 41", "3.6, 3.4, 3.5", "3.0, 3.1, 3.1"),
    ("dynamic, bfloat16", "76, 73, 69", "69, 73, 64", "5.8, 6.0, 5.9", "4.4, 4.4, 4.4"),
    ("fine-tune, bfloat16", "81, 82, 73", "88, 85, 78", "4.9, 5.0, 4.8", "4.2, 4.3, 4.2"),
    ("soft, bfloat16", "70, 72, 73", "64, 63, 67", "5.5, 5.5, 5.7", "4.0, 4.1, 4.2"),
    ("zero-shot, bfloat16", "16, 16, 18", "18, 17, 21", "2.3, 2.3, 2.3", "1.6, 1.7, 1.6"),
    ("dynamic, float32", "144, 151, 145", "147, 147, 148", "8.3, 8.1, 8.2", "4.8, 4.7, 4.5"),
    ("fine-tune, float32", "139, 137, 138", "142, 136, 140", "4.7, 4.6, 4.6", "4.2, 4.2, 4.2"),
    ("soft, float32", "141, 140, 142", "139, 143, 143", "8.2, 8.3, 8.2", "4.1, 4.1, 4.2"),
    ("zero-shot, float32", "25, 25, 25", "25, 24, 24", "2.0, 2.0, 2.0", "1.9, 1.9, 1.9"),
)
MEMORY_PRICE = """We aimed at 5 % more time at most. The default run's training keeps it: 0, 3 and 3 % more. The whole
run takes 8, 14 and 14 % more, mostly because greedy-generate measures two things that it did not measure before: the
loss of the references (6.3 s) and what was forgotten (12.4 s). Without these two it would be 1 % less, 5 % more and 4 %
more. Decoding itself takes 15.5 s, before 14 to 15. In the short trainings in bfloat16 `dynamic` and `soft` take 0 to
13 % less. `fine-tune` takes 4 to 9 % more and `zero-shot` 1 to 3 s, which is more than the aim: the steps of
`fine-tune` take the same time, but the loss of validation is now computed in float32, one to three seconds for each
trial. In float32 all take between 4 % less and 2 % more. What was forgotten is matrix products for 86 % of its time (by
a profile), so it would be faster only with fewer tokens."""
MEMORY_STEPS = """An earlier version, with passes of 640 tokens of one trial each, was slower: nine batches, timed by
hand in one process, took 22 s where the code before took 17 to 19. With all trials and rows in one pass both take the
same 3.8 s for the longest batch, so nothing in the loop is slower. But products of fewer rows are slower, each pass
costs thousands of calls however small it is, and memory that was given back has to be cleared. Now trials share a pass
as far as its tokens allow (`stages/train/trials_per_pass.py`): 19.7 s with 1280 tokens. With 1152, which the stage
train uses, the peak was lower. Huge pages made steps 4 to 9 % slower (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`,
`THP_MEM_ALLOC_ENABLE=1`)."""

# How many times faster than theirs ours should be.
TRAINING_AIMS = {"fine-tune": 2.0, "soft": 2.5, "dynamic": 2.5}
DECODING_AIM = 4.0

# PyTorch's names for the operators that take most of the time besides the products.
OPERATORS = {
    "_fused_adamw_": "AdamW",
    "_softmax": "softmax",
    "add": "additions",
    "add_": "additions in place",
    "copy_": "copies",
    "index": "gathering rows",
    "linalg_vector_norm": "gradient norms",
    "mul": "products by element",
    "mul_": "products by element in place",
}
