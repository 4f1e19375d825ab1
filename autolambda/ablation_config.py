"""The ablation's part of the YAML: which rows the paper's studies (arXiv 2510.10977) have on a pair.

None of it is part of a study's identity: each row's key in the database holds what its numbers depend on.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from autolambda.strict import Name, Positive, Strict

AblationName = Literal["uniform", "layers", "modules", "decoding", "backbones", "methods"]
MethodName = Literal["task_arithmetic", "ties", "slerp"]
ABLATIONS: tuple[AblationName, ...] = get_args(AblationName)

Lam = Annotated[float, Field(ge=0, le=1)]
Lams = Annotated[tuple[Lam, ...], Field(min_length=1)]


class AblationConfig(Strict):
    """``partial_lambda`` is that of the layers and modules that are interpolated, and of SLERP.

    ``decoding_lambdas`` are measured at each of the ``temperatures`` with each of the ``top_ps``. ``backbones`` stand
    in Instruct's place; without any, ``models.base`` does. ``responses`` are the first of the confirm slice in its
    fixed order; ``None`` is all of them.
    """

    lambdas: Lams = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    partial_lambda: Annotated[float, Field(gt=0, le=1)] = 0.8
    decoding_lambdas: Lams = (0.4, 0.8)
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0, le=100)], ...], Field(min_length=1)] = (0.6, 0.7)
    top_ps: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.8, 0.95)
    backbones: tuple[Name, ...] = ()
    backbone_lambdas: Lams = (0.0, 0.4, 0.6, 0.8)
    methods: tuple[MethodName, ...] = get_args(MethodName)
    responses: Positive | None = None
