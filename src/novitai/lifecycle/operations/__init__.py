# SPDX-License-Identifier: Apache-2.0
"""Operations: the verbs, their steps, and the runner that runs the steps."""
