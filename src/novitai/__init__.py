# SPDX-License-Identifier: Apache-2.0
"""The control plane between you and rented GPUs."""
