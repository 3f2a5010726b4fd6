# SPDX-License-Identifier: Apache-2.0
"""Schemas of utilization."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time


class UtilizationAt(ResponseModel):
    """A value in percent, as Novita measured it."""

    at: Time = Field(description="When it was measured")
    percent: float = Field(description="The value in percent")


class UtilizationResponse(ResponseModel):
    """The series of an instance, oldest value first; times without a value are left out."""

    gpu: Annotated[list[UtilizationAt], Field(description="Use of its GPUs, as their average")]
    gpu_memory: Annotated[
        list[UtilizationAt], Field(description="Use of the memory of its GPUs, as their average")
    ]
    cpu: list[UtilizationAt] = Field(description="CPU use")
    memory: list[UtilizationAt] = Field(description="Use of the main memory")
    disk: Annotated[list[UtilizationAt], Field(description="Use of the root filesystem")]
