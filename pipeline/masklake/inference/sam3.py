"""SAM 3 (facebookresearch/sam3): it finds all instances of the concepts that it is told, each a short noun phrase.

A concept's text is encoded once, when the model is loaded, and by itself, so that its numbers do not depend on the others. An image's
features are computed once for all concepts; each concept then has its own pass of what fuses text and image, decoder and mask head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from masklake.inference import tokens
from masklake.inference.family import Answer, Family, Found

if TYPE_CHECKING:
    import torch

    from masklake.inference.segments import Settings


class Sam3(Family):
    """The image model. Its video tracker, and prompts of boxes, are left aside."""

    def prepare(self, module: Any, folder: Path, name: str, settings: Settings | None = None) -> None:
        """Encode the concepts, which are the labels of `settings`, with the checkpoint's own tokenizer; the text encoder is then let go.

        Boxes are coordinates: the decoder that refines them works in float32, whatever the precision of the rest.

        Raises:
            Refused: there is no tokenizer, it is another one, or a concept is too long.
        """
        import torch

        concepts = [] if settings is None else list(settings.labels.values())
        encoder, projection = module.text_encoder.float().cpu(), module.text_projection.float().cpu()
        asked, length = {}, module.config.text_config.max_position_embeddings
        tokenizer = tokens.Tokenizer(folder, module.config.text_config.vocab_size, name) if concepts else None
        for number, concept in enumerate(concepts):
            assert tokenizer is not None
            ids, own = tokens.of_concept(tokenizer, concept, length)
            with torch.inference_mode(False), torch.no_grad():
                states = projection(encoder(input_ids=ids, attention_mask=own).last_hidden_state)
            module.register_buffer(f"masklake_concept_{number}", states, persistent=False)
            module.register_buffer(f"masklake_tokens_{number}", own.bool(), persistent=False)
            asked[concept] = number
        module.masklake_concepts = asked
        module.masklake_least = settings.score_threshold if settings is not None else self.score_threshold
        module.text_encoder, module.text_projection = None, None
        module.detr_decoder.float()

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """What is found of each concept of `tasks` in a batch."""
        features = module.vision_encoder(pixel_values)
        return {concept: _found(module, features, module.masklake_concepts[concept]) for concept in tasks}

    def compiled_parts(self, module: Any) -> list[Any]:
        """The image's encoder, where most of the time goes."""
        return [module.vision_encoder]


def _found(module: Any, features: Any, number: int) -> Found:
    """The queries whose score reaches the threshold: class probability times that of the concept's presence in the image.

    As `Sam3Model.forward`, without boxes and the semantic map, and the scores of `post_process_instance_segmentation`, of transformers.
    """
    maps, positions = features.fpn_hidden_states[:-1], features.fpn_position_encoding[:-1]
    dtype, count = maps[-1].dtype, len(maps[-1])
    text = getattr(module, f"masklake_concept_{number}").to(dtype).expand(count, -1, -1)
    own = getattr(module, f"masklake_tokens_{number}").expand(count, -1)
    fused = module.detr_encoder(vision_features=[maps[-1]], text_features=text, vision_pos_embeds=[positions[-1]], text_mask=own)
    decoded = module.detr_decoder(
        vision_features=fused.last_hidden_state.float(),
        text_features=fused.text_features.float(),
        vision_pos_encoding=fused.pos_embeds_flattened.float(),
        text_mask=own,
        spatial_shapes=fused.spatial_shapes,
    )
    queries = decoded.intermediate_hidden_states[-1].to(dtype)
    logits = module.dot_product_scoring(decoder_hidden_states=queries[None], text_features=fused.text_features, text_mask=own)[0, ..., 0]
    masks = module.mask_decoder(
        decoder_queries=queries,
        backbone_features=list(maps),
        encoder_hidden_states=fused.last_hidden_state,
        prompt_features=text,
        prompt_mask=own,
    ).pred_masks
    scores = logits.float().sigmoid() * decoded.presence_logits[-1].float().sigmoid()
    finite = scores.isfinite().all(dim=1) & masks.isfinite().flatten(1).all(dim=1)
    image, query = (scores >= module.masklake_least).nonzero(as_tuple=True)
    return Found(
        image.cpu().numpy().astype(np.int64), scores[image, query].double().cpu().numpy(), masks[image, query], finite.cpu().numpy()
    )
