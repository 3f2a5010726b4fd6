# SPDX-License-Identifier: Apache-2.0
"""The job engine behind four methods: register, nudge, start, stop.

Rows are the truth, jobs are nudges: a job carries a key and nothing else, and running it twice,
late or never is harmless, because a sweep finds every row that is due. No business rules here.
"""
