# SPDX-License-Identifier: Apache-2.0
"""The job engine; see `JobEngine`.

The rows hold all state; a job carries only a key. A job that is lost, late or run twice is
harmless, because the sweep finds every due row. No business rules here.
"""
