"""The schema of recipes: one dataclass per section, those of the data in `data_schema.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.ranges import KEYS, Form, formed, number, one_of
from mio.core.contract.values import Decoding
from mio.core.recipe.data_schema import DataConfig, MixtureConfig

SCHEDULES = ("cosine", "linear", "constant", "wsd")
DECAY_SHAPES = ("linear", "cosine", "1-sqrt")
LICENSE = Form(
    r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}( (AND|OR|WITH) [A-Za-z0-9][A-Za-z0-9.+-]{0,99}){0,9}",
    "an SPDX identifier or expression such as `Apache-2.0`",
)


@dataclass
class LossConfig:
    """Weight of each token's cross-entropy, by what it is. 0 leaves a token out."""

    prompt_text: float = number(1.0, 0, 1e6)
    prompt_media: float = number(1.0, 0, 1e6)
    response_text: float = number(1.0, 0, 1e6)
    response_media: float = number(1.0, 0, 1e6)
    control: float = number(1.0, 0, 1e6)
    """Of control tokens in responses, times the weight that each is declared with. In prompts they are never learnt."""
    heads: dict[str, float] = number(dict, 0, 1e6)
    """Factors on the losses of heads beside those of tokens, by modality; 1 of one that is not named. With 0 a head
    learns nothing."""


@dataclass
class RuleConfig:
    """What happens to parameters whose name matches. No match at all is an error."""

    pattern: str = ""
    """Shell-style pattern of parameter names, for example `layers.*.attention.*`."""
    trainable: bool = True
    rows: list[str] = field(default_factory=list)
    """Makes it a rule for embedding and head alone, of which it trains only the rows of vocabulary blocks that match
    these patterns, `new` for those that this stage adds, and `untrained` for rows that are still one vector, as no
    stage has trained their tokens."""
    lr_scale: float = number(1.0, 0, 1e6)
    """Multiplies the learning rate."""
    weight_decay: float | None = number(None, 0, 1e3)
    pull: float | None = number(None, 0, 1e3)
    schedule: str = one_of("", "", *SCHEDULES)
    """Replaces the schedule, as the keys below replace theirs; those that are not given are the optimizer's."""
    warmup: float | None = number(None, 0, 1)
    final: float | None = number(None, 0, 1)
    decay: float | None = number(None, 0, 1)
    decay_shape: str = one_of("", "", *DECAY_SHAPES)


@dataclass
class OptimizerConfig:
    """How a step changes the weights: update, learning rate, and what differs for some of the parameters."""

    kind: str = one_of("adamw", "adamw", "muon")
    """`adamw`, or `muon`: Muon on the matrices inside the layers and AdamW on everything else."""
    lr: float = number(3e-5, 0, 1e3)
    """Peak learning rate of AdamW."""
    muon_lr: float = number(0.02, 0, 1e3)
    """Peak learning rate of Muon."""
    betas: list[float] = number(lambda: [0.9, 0.95], 0, 1, below=True)
    eps: float = number(1e-8, 1e-20, 1)
    weight_decay: float = number(0.1, 0, 1e3)
    """On matrices; norms, biases and embeddings have none."""
    pull: float = number(0.0, 0, 1e3)
    """Toward what the stage starts from: after each step a weight loses this, times the learning rate, of its distance
    (L2-SP, Li et al. 2018, arXiv 1802.01483). What the stage adds is left alone."""
    schedule: str = one_of("cosine", *SCHEDULES)
    """Learning rate after the warm-up: `cosine` and `linear` fall from there to the end, `constant` stays, `wsd` stays
    and falls over the last steps (warm-up, stable, decay)."""
    warmup: float = number(0.03, 0, 1)
    """Share of the steps with rising learning rate."""
    final: float = number(0.0, 0, 1)
    """Learning rate at the end, as a share of the peak; a `constant` one has none."""
    decay: float = number(0.1, 0, 1)
    """Share of the steps over which `wsd` falls, at the end."""
    decay_shape: str = one_of("1-sqrt", *DECAY_SHAPES)
    """How `wsd` falls: `linear`, `cosine`, or `1-sqrt`, one minus a square root."""
    clip: float = number(1.0, 0, 1e9)
    """Largest gradient norm; 0 means no clipping."""
    rules: dict[str, RuleConfig | None] = field(default_factory=dict)
    """Rules by a name of one's own, such as the plugin's whose parameters they are about. Of several that match a
    parameter, the last one applies, in the order in which files name them. Null takes away one of an included file."""


@dataclass
class LoraRuleConfig:
    """Another size for some of the adapters. No match at all is an error."""

    pattern: str = ""
    """Shell-style pattern of names of linear layers."""
    rank: int | None = number(None, 1, 2**16)
    alpha: float | None = number(None, 0, 1e6, above=True)


@dataclass
class LoraConfig:
    """Low-rank adapters beside frozen linear layers. In PEFT's words: `r`, `lora_alpha`, `use_dora`, `use_rslora`,
    `target_modules`, `rank_pattern` and `alpha_pattern`, `trainable_token_indices`, `modules_to_save`."""

    rank: int = number(0, 0, 2**16)
    """Rank of the adapters; 0: there are none, and the model itself is trained."""
    alpha: float = number(16.0, 0, 1e6, above=True)
    """An adapter's output is multiplied by `alpha / rank`."""
    dora: bool = False
    """Whether the size of each row of a matrix is learnt apart from its direction."""
    rslora: bool = False
    """Whether the output is multiplied by `alpha / sqrt(rank)` instead."""
    targets: list[str] = field(default_factory=lambda: ["layers.*"])
    """Linear layers that get an adapter, by shell-style patterns of their names: `layers.*.attention.query`."""
    rules: dict[str, LoraRuleConfig | None] = field(default_factory=dict)
    """As those of the optimizer: the last one that matches applies."""
    rows: list[str] = field(default_factory=lambda: ["new"])
    """Vocabulary rows that are trained beside the adapters: patterns of blocks, and `new` for those that this stage
    adds."""
    train: list[str] = field(default_factory=list)
    """Further parameters that are trained, as a whole: patterns of names, `norm.weight` or `embedding.weight`."""


@dataclass
class DistillationConfig:
    """Old documents are learnt from the probabilities that the model gave before the stage, in place of their tokens
    (learning without forgetting, Li and Hoiem 2016, arXiv 1606.09282)."""

    groups: list[str] = field(default_factory=list)
    """Groups of the mixture that are learnt so, by shell-style patterns; one that begins with `!` takes away what the
    ones before it have named. Empty: none."""
    share: float = number(1.0, 0, 1)
    """What the probabilities of what the stage starts from count for; the rest is the tokens' own."""
    weight: float = number(1.0, 0, 1e6, above=True)
    """Factor on the losses of these groups, beside those of others."""


@dataclass
class AverageConfig:
    """An average of the weights over the steps, kept beside them."""

    kind: str = one_of("none", "none", "ema", "mean")
    """`ema`: exponential; `mean`: plain, over all steps from `start` on."""
    decay: float = number(0.999, 0, 1, below=True)
    """Of `ema`: what the average before a step counts for. It rises to this over the first steps."""
    start: float = number(0.0, 0, 1, below=True)
    """Share of the steps before the first one that counts."""


@dataclass
class GuardConfig:
    """What happens to steps that would do harm."""

    max_skipped: int = number(10, 1, 10**9)
    """Steps skipped one after the other before the run stops. A step whose gradient is not finite is always skipped."""
    spike: float = number(0.0, 0, 1e6)
    """A step is a spike if its loss exceeds the mean of the steps before it by this many standard deviations; 0: none
    is."""
    spike_window: int = number(100, 2, 10**6)
    """Steps that mean and standard deviation are taken over. There are no spikes before as many were trained on."""
    on_spike: str = one_of("skip", "skip", "warn", "stop")
    """`skip` leaves the weights as they are, `warn` only counts and reports, `stop` ends the run before the update."""


@dataclass
class TrainConfig:
    """What is learnt from a batch, and how."""

    steps: int = number(1000, 1, 10**9)
    """Optimizer steps of the stage."""
    rows: int = number(8, 1, 10**6)
    """Rows of one optimizer step over all devices."""
    micro_rows: int = number(0, 0, 10**6)
    """Rows of one forward pass of one device; 0 means all of the device's share. The rest is accumulated."""
    precision: str = one_of("bf16", "bf16", "fp32")
    """`bf16`: autocast with float32 weights; `fp32`."""
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)


@dataclass
class EvaluateConfig:
    """Held-out figures at the end of the stage."""

    tasks: list[str] = field(default_factory=list)
    """Tasks run at the end of the stage; empty for none."""
    items: int = number(200, 1, 10**7)
    """Held-out items per task."""
    batch: int = number(100, 1, 10**5)
    """Prompts decoded together."""
    average: bool = False
    """Whether the average of the weights is evaluated, in place of the last ones."""
    seed: int = number(0, 0, 2**32 - 1)
    """Of what answers draw; 0: the recipe's `seed`."""


@dataclass
class ValidateConfig:
    """Looking at held-out records while the stage trains, which changes nothing of the training."""

    every: int = number(0, 0, 10**9)
    """Steps between validations, of which the last step has one too; 0: none at all."""
    items: int = number(64, 1, 10**6)
    """Held-out documents of each direction of each source, the same ones every time."""
    tasks: list[str] = field(default_factory=list)
    """Tasks run at every validation; empty for none."""
    task_items: int = number(16, 1, 10**6)
    """Items of each task."""
    samples: int = number(1, 0, 1000)
    """Held-out records of each direction of each source that the model completes after the last step, to be looked at
    and listened to; 0: none."""
    best: str = "loss"
    """Figure by which `runtime.keep_best` keeps checkpoints: `loss`, `loss/GROUP`, `modality/NAME`, `heads/NAME`,
    `tasks/NAME`."""
    average: bool = False
    """Whether the average of the weights is looked at, in place of the present ones."""


@dataclass
class RuntimeConfig:
    """How the run is carried out. May differ between an interrupted run and its continuation."""

    runs: str = "runs"
    """Folder of run folders."""
    tokens: str = "tokens"
    """Folder of tokenised sources, which are read in place of the sources themselves."""
    workers: int = number(0, 0, 1024)
    """Data worker processes per device."""
    devices: int = number(1, 1, 1024)
    """Processes per node, one device each. Under `torchrun` and `srun` theirs count."""
    nodes: int = number(1, 1, 10**5)
    accelerator: str = one_of("auto", "auto", "cpu", "gpu", "cuda", "mps")
    sharding: str = one_of("full", "full", "hybrid", "none")
    """Parameters, gradients and optimizer state: `full` splits them over all devices, `hybrid` over those of a node,
    with a copy per node, `none` copies them to every device."""
    reshard: bool = True
    """Whether a layer's gathered parameters are freed between its forward and its backward pass."""
    tensor_parallel: int = number(1, 1, 1024)
    """Devices that share each matrix and the vocabulary, neighbours of one node."""
    expert_parallel: int = number(1, 1, 1024)
    """Devices that have the experts of a layer between them, neighbours among those that parameters are split over.
    Each expert is split over the others."""
    activation_checkpointing: str = one_of("none", "none", "selective", "full")
    """Activations: `none` keeps all, `selective` those that are dear to compute, `full` one per layer."""
    compile: str = one_of("auto", "auto", "blocks", "none")
    """`blocks` compiles each layer, `none` does not, `auto` does on GPUs."""
    threads: int = number(0, 0, 1024)
    """CPU threads; 0 leaves torch's own choice."""
    log_every: int = number(10, 1, 10**9)
    """Steps between logged figures."""
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where figures and samples go beside `metrics.csv`, which is always written (`csv` names it): `tensorboard`,
    `wandb`, `mlflow`, and what installed plugins bring."""
    logger_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of loggers, by name."""
    checkpoint_every: int = number(200, 1, 10**9)
    """Steps between checkpoints."""
    keep_last: int = number(2, 1, 10**6)
    """Newest checkpoints that are kept."""
    keep_best: int = number(0, 0, 10**6)
    """Further checkpoints that are kept: the best by `validate.best`, or without validation those with the lowest
    training loss since the one before."""
    restarts: int = number(3, 0, 10**6)
    """How often processes that `mio fit` started itself are started again after one of them died."""
    stalled_after: float = number(600.0, 0, 1e9)
    """Seconds without a step after which every rank's place in the program is reported; 0 turns the watchdog off."""
    abort_after: float = number(3600.0, 0, 1e9)
    """Seconds without a step after which the run ends with an error, for its launcher to start it again; 0: never."""


@dataclass
class _Preset:
    preset: str = ""


@dataclass
class ModelKeys(TransformerConfig, _Preset):
    """Keys of `model`. A recipe keeps those that are set, as what they change may be a preset."""


@dataclass
class Recipe:
    """One stage of a training: what it starts from, learns, measures. `chain.py` puts stages in a row."""

    name: str = ""
    """Name of the stage and of its run folder."""
    start_from: str = ""
    """Recipe whose result this stage starts from, or the folder of a run or of a checkpoint; empty: from nothing."""
    seed: int = number(0, 0, 2**32 - 1)
    license: str = formed(LICENSE)
    """Licence of the model, which `mio export` names. A stage does not take it from its parent. May be changed in a run
    folder."""
    requires: list[str] = field(default_factory=list)
    """Distributions that the recipe needs, as in `mio-mesh>=0.1`. Those of all files and of what the stage starts from
    add up. May be changed in a run folder."""
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Plugins in use, in vocabulary order, with the options of each."""
    model: dict[str, Any] = field(default_factory=dict, metadata={KEYS: ModelKeys})
    """`preset` (a plugin's backbone) and fields of `TransformerConfig` that differ from it."""
    data: DataConfig = field(default_factory=DataConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    generate: dict[str, dict[str, Any]] = field(default_factory=dict, metadata={KEYS: dict[str, Decoding]})
    """How answers are decoded where nobody says otherwise, by the modality that was asked for, and `default` of all:
    fields of `Decoding`. Changes nothing of the training, and may be changed in a run folder."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
