# SPDX-License-Identifier: Apache-2.0
"""The control side, under `/_emulator/`: what a test tells the emulator, and what it can ask."""
