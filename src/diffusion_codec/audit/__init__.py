"""The hallucination audit: what a decoder made up, in text, faces, patterns and counts; and where it is unsure.

`python -m diffusion_codec.audit` measures everything the book shows; `diffusion-codec audit FILE` maps one file.
"""
