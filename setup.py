"""The compiled half of the codec. All else is in pyproject.toml."""

import sys

from setuptools import Extension, setup

# Contraction of a multiply and an add would round once where the NumPy reference rounds twice.
flags = [] if sys.platform == "win32" else ["-O3", "-ffp-contract=off"]

setup(
    ext_modules=[
        # Optional: without a compiler the package still installs, and says so when it is imported.
        Extension(
            "fedsparse.codec._kernels",
            ["fedsparse/codec/_kernels.pyx"],
            depends=["fedsparse/codec/kernels.h"],
            include_dirs=["fedsparse/codec"],
            extra_compile_args=flags,
            optional=True,
        )
    ]
)
