# SPDX-License-Identifier: Apache-2.0
"""The client commands: they call a server over HTTP with `novitai_client`, and load nothing of it.

Each command is a function of an `Invocation`, declared with `invocation.command`, which adds the
options that all commands have, and turns every error into a message and an exit code. A module is
loaded only when one of its commands is run or its help is shown (`novitai.cli.main`).
"""
