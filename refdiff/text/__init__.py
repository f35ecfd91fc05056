"""The prompt: from text to the ids of CLIP's byte-pair vocabulary.

`Tokenizer.clip()` is CLIP's own, `Tokenizer.from_folder(path)` a checkpoint's, `build_small(words)` a small one in the
same format. The ids are those of transformers' CLIPTokenizer, which diffusers' pipelines use.

OpenAI's original differs in its cleaning: it ran ftfy (mends mojibake, curly quotes, ligatures, full-width letters)
and undid HTML entities ("&amp;" became "&") before the same expression; transformers 5 only composes accents (NFC).
We follow transformers, because the images of published pipelines are made with it.
"""

from refdiff.text.tokenizer import Encoding, Tokenizer, build_small

__all__ = ["Encoding", "Tokenizer", "build_small"]
