# SPDX-License-Identifier: Apache-2.0
"""The command line. One file per group of commands; what a command needs is imported inside it."""
