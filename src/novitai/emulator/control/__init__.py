# SPDX-License-Identifier: Apache-2.0
"""The control API, under `/_emulator/`: tests use it to steer and inspect the emulator."""
