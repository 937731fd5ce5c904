"""Small configurations of the common Hugging Face networks, each with a head that names logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from network import Model
from torch import Tensor, nn

WIDTH = 64
HEADS = 4
INNER = 160
LAYERS = 2
LABELS = 10
VOCABULARY = 300
TOKENS = 12


def models() -> Iterator[Model]:
    for name, (build, example, classes) in TABLE.items():
        yield Model(
            name=f"huggingface/{name}",
            family=f"huggingface {name}",
            build=partial(_eager_or_not, build),
            example=example,
            classes=classes,
        )


attention = "sdpa"  # "eager" where a tool's own examples ask for attention in plain operations


def _eager_or_not(build: Callable[[], nn.Module]) -> nn.Module:
    model = build()
    model.config.use_cache = False
    if attention != "sdpa":
        model.set_attn_implementation(attention)
    return model


def _tokens(*names: str, count: int = TOKENS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randint(3, VOCABULARY, (1, count), generator=generator)
        if name.endswith("input_ids")
        else torch.ones(1, count, dtype=torch.int64)
        for name in names
    }


def _noise(name: str, *shape: int) -> dict[str, Tensor]:
    return {name: torch.randn(*shape, generator=torch.Generator().manual_seed(1))}


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            max_position_embeddings=32,
            num_labels=LABELS,
        )
    )


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS
        )
    )


def llama() -> nn.Module:
    """Two key and value heads for four query heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS // 2,
            max_position_embeddings=32,
        )
    )


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            image_size=32,
            patch_size=8,
            num_labels=LABELS,
        )
    )


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY,
            num_mel_bins=20,
            d_model=WIDTH,
            encoder_layers=LAYERS,
            decoder_layers=LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=INNER,
            decoder_ffn_dim=INNER,
            max_source_positions=24,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )


def wav2vec2() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    return Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            conv_dim=(32, 48, 56),
            conv_stride=(5, 2, 2),
            conv_kernel=(10, 3, 3),
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
    )


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=INNER,
            num_layers=LAYERS,
            num_heads=HEADS,
        )
    )


TABLE: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]], int]] = {
    "bert": (bert, partial(_tokens, "input_ids", "attention_mask", "token_type_ids"), LABELS),
    "gpt2": (gpt2, partial(_tokens, "input_ids"), VOCABULARY),
    "llama": (llama, partial(_tokens, "input_ids"), VOCABULARY),
    "t5": (t5, partial(_tokens, "input_ids", "decoder_input_ids"), VOCABULARY),
    "vit": (vit, partial(_noise, "pixel_values", 1, 3, 32, 32), LABELS),
    "wav2vec2": (wav2vec2, partial(_noise, "input_values", 1, 1600), VOCABULARY),
    "whisper": (
        whisper,
        lambda: {
            **_noise("input_features", 1, 20, 48),
            **_tokens("decoder_input_ids"),
        },
        VOCABULARY,
    ),
}
