"""Strata: deep recurrent sequence-to-sequence translation, trained, measured and served.

The floors of the library, each importing only from those before it:
`errors, config` < `text` < `corpus`, `model` < `inference` < `evaluation` < `training` < `cli`; `serving` stands above.
"""

__version__ = "0.1.0"
