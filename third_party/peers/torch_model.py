"""The peers' common shape as a transformers model, its LoRA, and a tokenizer made in code."""

import peft
import tokenizers
import torch
import transformers

from third_party.peers import shapes


def model() -> transformers.Qwen2ForCausalLM:
    """Qwen2 with random float32 weights: normal kernels, norms at one, biases at zero."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=shapes.VOCAB_SIZE,
        hidden_size=shapes.HIDDEN_SIZE,
        intermediate_size=shapes.INTERMEDIATE_SIZE,
        num_hidden_layers=shapes.NUM_LAYERS,
        num_attention_heads=shapes.NUM_HEADS,
        num_key_value_heads=shapes.NUM_KV_HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": shapes.ROPE_THETA},
        rms_norm_eps=shapes.RMS_NORM_EPS,
        initializer_range=shapes.INIT_STD,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        dtype="float32",
    )
    result = transformers.Qwen2ForCausalLM(config)
    shapes.require(result.num_parameters(), shapes.BASE_PARAMETERS, "base parameters")
    return result


def lora_config() -> peft.LoraConfig:
    """LoRA on the seven projections."""
    return peft.LoraConfig(
        r=shapes.LORA_RANK,
        lora_alpha=shapes.LORA_ALPHA,
        lora_dropout=0.0,
        target_modules=list(shapes.LORA_TARGETS),
        task_type="CAUSAL_LM",
    )


def trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters that take a gradient."""
    return [p for p in module.parameters() if p.requires_grad]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One word `w{i}` per token; the ids of EOS and padding lie past the model's vocabulary."""
    vocab = {f"w{i}": i for i in range(shapes.VOCAB_SIZE)}
    vocab |= {"<eos>": shapes.EOS_ID, "<pad>": shapes.PAD_ID}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<pad>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )
